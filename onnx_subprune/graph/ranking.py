"""Outputs whose rows stand in the order of some scores: the boxes of a detector without a non-maximum suppression, behind a TopK.

    scores, boxes -> TopK (scores) -> Gather, GatherElements of both at its indices -> Concat -> output

Two scores that differ in their last digit may change places, and with them two boxes that have nothing in common: how far such an output is from another one
says nothing. What says it is what the rows are taken of, in front of the TopK.
"""

from collections.abc import Callable, Collection

from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import key_of

RANKING = "TopK"
LAYERS = frozenset(
    ("Attention", "Conv", "ConvTranspose", "Einsum", "GRU", "Gemm", "If", "LSTM", "Loop", "MatMul", "RNN", "Scan")
)
"""What may have weights, or hold what has: what is behind a TopK and one of these is no mere choice of rows."""


def fronts(network: Network, output: str, floating: Callable[[str], bool]) -> tuple[str, ...]:
    """Return the floating-point tensors that the rows of `output` are chosen from; nothing for an output without such an order."""
    behind = _ancestors(network, output)
    region = set[int]()
    for place in behind:
        if key_of(network.nodes[place]) == RANKING:
            after = _descendants(network, place, behind)
            if after and not any(key_of(network.nodes[item]) in LAYERS for item in after):
                region |= {place, *after}
    made = {name for place in region for name in network.nodes[place].output}
    read = (name for place in sorted(region) for name in network.reads[place])
    return tuple(
        dict.fromkeys(name for name in read if name not in made and name not in network.constants and floating(name))
    )


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
    """The nodes of `among` that the indices of a TopK lead to, with those that read what these make."""
    found, made = set[int](), set(network.nodes[place].output[1:])
    for item in sorted(among):  # nodes are in order
        if item > place and not made.isdisjoint(network.reads[item]):
            found.add(item)
            made |= set(network.nodes[item].output)
    return found
