"""Operators on quantized numbers: the channels around them stay, and what is in floating point is pruned."""

from collections.abc import Sequence, Set

from onnx import NodeProto

QUANTIZED = (
    "ConvInteger",
    "Dequantize",
    "DynamicQuantize",
    "GatherBlockQuantized",
    "MatMulBnb4",
    "MatMulFpQ4",
    "MatMulInteger",
    "MatMulNBits",
    "QAttention",
    "QEmbedLayerNormalization",
    "QGemm",
    "QLinear",
    "QMoE",
    "QOrdered",
    "Quantize",
)
"""What the names of operators begin with that read, or make, numbers of few bits with a scale."""


def quantizes(node: NodeProto) -> bool:
    """True if a node reads, or makes, quantized numbers."""
    return node.op_type.startswith(QUANTIZED)


LAYERS = ("Conv", "ConvTranspose", "Einsum", "Gemm", "GRU", "LSTM", "MatMul", "RNN")
"""Operators whose weights can be pruned."""


def only_quantized(nodes: Sequence[NodeProto], constants: Set[str]) -> NodeProto | None:
    """Return the first node on quantized numbers of a model that has no layer with `constants` in floating point; None for any other model."""
    quantized = [node for node in nodes if quantizes(node)]
    floating = (node.op_type in LAYERS and not constants.isdisjoint(node.input[:2]) for node in nodes)
    return quantized[0] if quantized and not any(floating) else None
