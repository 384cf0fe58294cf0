"""Outputs whose rows are chosen, or put in order, by some scores: the boxes of a detector, behind a TopK or a non-maximum suppression.

    scores, boxes -> TopK (scores) -> Gather, GatherElements of both at its indices -> Concat -> output

Two scores that differ in their last digit may change places, and with them two boxes that have nothing in common; one that passes a threshold makes a row
more. How far such an output is from another one says nothing. What says it is what the rows are taken of, in front of the choice.
"""

from collections.abc import Callable, Collection

from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import key_of

CHOOSING = {"Compress": 0, "NonMaxSuppression": 0, "NonZero": 0, "TopK": 1}
"""Operators that choose, and the first of their outputs that depends on it from one digit to the next: the values of TopK do not."""
LAYERS = frozenset(
    ("Attention", "Conv", "ConvTranspose", "Einsum", "GRU", "Gemm", "If", "LSTM", "Loop", "MatMul", "RNN", "Scan")
)
"""What may have weights, or hold what has: what is behind a choice and one of these is no mere choice of rows."""


def fronts(network: Network, output: str, floating: Callable[[str], bool]) -> tuple[str, ...]:
    """Return the floating-point tensors that the rows of `output` are chosen from; nothing for an output without such an order.

    Class ids that TopK puts in order are none: how many are equal says something.
    """
    behind = _ancestors(network, output)
    choosing = CHOOSING if floating(output) else CHOOSING.keys() - {"TopK"}
    region = set[int]()
    for place in behind:
        if key_of(network.nodes[place]) in choosing:
            after = _descendants(network, place, behind)
            chosen = after or output in network.nodes[place].output[CHOOSING[key_of(network.nodes[place])] :]
            if chosen and not any(_layer(key_of(network.nodes[item])) for item in after):
                region |= {place, *after}
    return tuple(_read(network, region, floating))


def _layer(key: str) -> bool:
    """True for what may have weights; operators of other domains may."""
    return key in LAYERS or "." in key


def _read(network: Network, region: Collection[int], floating: Callable[[str], bool]) -> dict[str, None]:
    """The floating-point tensors that nodes read from elsewhere, and those in front of truth values and integers that they read.

    Inputs of the model, which nothing changes, are none.
    """
    made = {name for place in region for name in network.nodes[place].output}
    found, passed = dict[str, None](), set(made)
    waiting = [name for place in sorted(region) for name in network.reads[place]]
    while waiting:
        name = waiting.pop(0)
        if name in passed or name in network.constants:
            continue
        passed.add(name)
        place = network.producer.get(name)
        if place is None:
            continue
        if floating(name):
            found[name] = None
        elif key_of(network.nodes[place]) not in ("Shape", "Size"):
            waiting += network.reads[place]
    return found


def _ancestors(network: Network, output: str) -> set[int]:
    """The nodes that an output is computed by."""
    found, waiting = set[int](), [output]
    while waiting:
        place = network.producer.get(waiting.pop())
        if place is not None and place not in found:
            found.add(place)
            waiting += network.reads[place]
    return found


def _descendants(network: Network, place: int, among: Collection[int]) -> set[int]:
    """The nodes of `among` that what a node has chosen leads to."""
    node = network.nodes[place]
    found, made = set[int](), set(node.output[CHOOSING[key_of(node)] :])
    for item in sorted(among):  # nodes are in order
        if item > place and not made.isdisjoint(network.reads[item]):
            found.add(item)
            made |= set(network.nodes[item].output)
    return found
