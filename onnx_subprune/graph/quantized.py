"""Operators on quantized numbers: the channels around them stay, and what is in floating point is pruned."""

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
