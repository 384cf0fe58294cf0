"""Why an axis stays, in words for the reader of a report."""

from onnx import AttributeProto, NodeProto

from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import key_of
from onnx_subprune.graph.quantized import quantizes

MIXERS = {
    **dict.fromkeys(
        (
            "LRN",
            "LayerNormalization",
            "RMSNormalization",
            "MeanVarianceNormalization",
            "LpNormalization",
            "GroupNormalization",
            "SimplifiedLayerNormalization",
            "com.microsoft.SkipLayerNormalization",
            "com.microsoft.SkipSimplifiedLayerNormalization",
        ),
        "whose normalisation mixes channels",
    ),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "CumSum"), "which mixes all positions of its axis"),
    **dict.fromkeys(("ArgMax", "ArgMin", "TopK"), "which compares all positions of its axis"),
    **dict.fromkeys(("MatMul", "Gemm", "Einsum"), "which sums over this axis, but not with a constant matrix"),
    **dict.fromkeys(("Reshape", "Flatten"), "which regroups this axis with others"),
    **dict.fromkeys(("Tile", "Expand"), "which repeats this axis"),
    **dict.fromkeys(("Conv", "ConvTranspose"), "which slides along this axis"),
    **dict.fromkeys(
        ("GatherElements", "GatherND", "Scatter", "ScatterElements", "ScatterND"), "whose indices count along this axis"
    ),
}


def mixing(label: str, node: NodeProto) -> str:
    """Return the reason for an axis of `node` that its rule, which is known, does not mention."""
    what = "which sums over this axis" if key_of(node).startswith("Reduce") else "which mixes its positions"
    return f"it feeds {label} ({key_of(node)}), {MIXERS.get(key_of(node), what)}"


def chosen_by(network: Network, node: NodeProto) -> str:
    """Return which inputs of the model decide which body of an If runs, as the end of a reason; nothing for any other node."""
    _, read = network.ancestors([node.input[0]], ()) if key_of(node) == "If" else ([], set())
    deciding = ", ".join(repr(value.name) for value in network.inputs if value.name in read)
    return f": which one runs hangs on the input {deciding}" if deciding else ""


def unknown(network: Network, label: str, node: NodeProto) -> str:
    """Return the reason for all axes of a node without a rule."""
    if any(item.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for item in node.attribute):
        return f"it enters or leaves the body of {label} ({key_of(node)}){chosen_by(network, node)}"
    if quantizes(node):
        return f"it feeds or leaves {label} ({key_of(node)}), where numbers are quantized: prune the float model first, then quantize it"
    return f"it feeds or leaves {label} ({key_of(node)}), an operator without a rule"
