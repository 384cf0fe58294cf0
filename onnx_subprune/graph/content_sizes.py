"""Tensors whose sizes hang on what the inputs hold, not on their sizes alone: as long as speech is made of a text, as many as there are peaks in a map."""

from collections.abc import Mapping

from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import key_of

SIZING: Mapping[str, tuple[int, ...]] = {
    "CenterCropPad": (1,),
    "Compress": (1,),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "If": (0,),
    "Loop": (0, 1),
    "NonMaxSuppression": (0, 1),
    "NonZero": (0,),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Scan": (),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Unique": (0,),
    "Upsample": (1,),
}
"""Operators, and the inputs whose contents decide how large their outputs are."""
SHAPES = frozenset(("Shape", "Size"))


def sized_by_content(network: Network) -> frozenset[str]:
    """Return the tensors that may have other sizes for other inputs of the same sizes; too many rather than too few."""
    if not any(key_of(node) in SIZING and key_of(node) != "Reshape" for node in network.nodes):
        return frozenset()
    valued = {value.name for value in network.inputs}
    sized = set[str]()
    for node, reads in zip(network.nodes, network.reads, strict=True):
        key = key_of(node)
        sizing = [node.input[slot] for slot in SIZING.get(key, ()) if slot < len(node.input)]
        if not sized.isdisjoint(reads) or not valued.isdisjoint(sizing):
            sized.update(node.output)
        told = sized if key in SHAPES else valued
        if not told.isdisjoint(reads):
            valued.update(node.output)
    return frozenset(sized - {""})
