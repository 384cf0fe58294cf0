"""Outputs whose rows are chosen, or put in order, by some scores: the boxes of a detector, behind a TopK or a suppression of what is not the most.

    scores, boxes -> TopK (scores) -> Gather, GatherElements of both at its indices -> Concat -> output

    map -> Mul (map, Equal (map, MaxPool (map))) -> output        the peaks of a map of centres or key points

Two scores that differ in their last digit may change places, and with them two boxes that have nothing in common; one that passes a threshold makes a row
more; a peak moves by a position. How far such an output is from another one says nothing. What says it is what the rows are taken of, in front of the choice.
"""

from collections.abc import Callable, Collection, Iterator

from onnx import NodeProto

from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import key_of

CHOOSING = {"Compress": 0, "NonMaxSuppression": 0, "NonZero": 0, "TopK": 1}
"""Operators that choose, and the first of their outputs that depends on it from one digit to the next: the values of TopK do not."""
COMPARING = frozenset(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"))
"""Operators that choose where they compare a map with its own maxima, or two activations for being equal."""
MOVING = ("Identity", "Pad", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""Operators that change the layout of a map, or put a border around it."""
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
        node = network.nodes[place]
        if key_of(node) in choosing or _compares(network, node, floating):
            made = node.output[CHOOSING.get(key_of(node), 0) :]
            after = _descendants(network, place, made, behind)
            chosen = after or output in made
            if chosen and not any(_layer(key_of(network.nodes[item])) for item in after):
                region |= {place, *after, *_maxima(network, node)}
    found = _read(network, region, floating)
    again = {item for name in found for item in list(_layouts(network, name))[1:]}
    return tuple(name for name in found if name not in again)


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


def _descendants(network: Network, place: int, chosen: Collection[str], among: Collection[int]) -> set[int]:
    """The nodes of `among` that what a node has chosen leads to."""
    found, made = set[int](), set(chosen)
    for item in sorted(among):  # nodes are in order
        if item > place and not made.isdisjoint(network.reads[item]):
            found.add(item)
            made |= set(network.nodes[item].output)
    return found


def _compares(network: Network, node: NodeProto, floating: Callable[[str], bool]) -> bool:
    """True if a node tells which numbers are the largest of those around them, or equal to others."""
    if key_of(node) not in COMPARING or not network.constants.isdisjoint(node.input) or not floating(node.input[0]):
        return False
    return key_of(node) == "Equal" or any(_pooled(network, *pair) for pair in (node.input, node.input[::-1]))


def _pooled(network: Network, name: str, other: str) -> bool:
    """True if `other` is the maxima of `name`, or of another layout of it."""
    same = set(_layouts(network, name))
    for item in _layouts(network, other):
        place = network.producer.get(item, -1)
        if place >= 0 and key_of(network.nodes[place]) == "MaxPool":
            return not same.isdisjoint(_layouts(network, network.nodes[place].input[0]))
    return False


def _maxima(network: Network, node: NodeProto) -> set[int]:
    """The nodes that make the maxima that a node compares with: these say nothing that the map does not."""
    found = set[int]()
    for name in node.input if key_of(node) in COMPARING else ():
        way = [network.producer.get(item, -1) for item in _layouts(network, name)]
        if way[-1] >= 0 and key_of(network.nodes[way[-1]]) == "MaxPool":
            found.update(way)
    return found


def _layouts(network: Network, name: str) -> Iterator[str]:
    """Yield a tensor and those that it is a change of layout of."""
    yield name
    while (place := network.producer.get(name, -1)) >= 0 and key_of(network.nodes[place]) in MOVING:
        name = network.nodes[place].input[0]
        yield name
