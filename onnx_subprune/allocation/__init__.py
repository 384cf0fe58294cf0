"""How wide every group stays: pure mathematics on error curves and costs."""

from onnx_subprune.allocation.blocks import BlockAware, block_aware
from onnx_subprune.allocation.budget import Channels, Latency, Macs, Params
from onnx_subprune.allocation.local_search import Terrain, local_moves
from onnx_subprune.allocation.marginal import MarginalCost
from onnx_subprune.allocation.multilinear import Factor, Multilinear, Term
from onnx_subprune.allocation.threshold import Threshold
from onnx_subprune.allocation.uniform import Uniform, proportional
from onnx_subprune.allocation.widths import Allocator, Bound, Curve, Room, filled, smallest

__all__ = [
    "Allocator",
    "BlockAware",
    "Bound",
    "Channels",
    "Curve",
    "Factor",
    "Latency",
    "Macs",
    "MarginalCost",
    "Multilinear",
    "Params",
    "Room",
    "Term",
    "Terrain",
    "Threshold",
    "Uniform",
    "block_aware",
    "filled",
    "local_moves",
    "proportional",
    "smallest",
]
