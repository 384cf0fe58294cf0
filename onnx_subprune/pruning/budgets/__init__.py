"""Budgets that are met by trying: a drop of a metric, a latency measured here.

Both walk a ladder of allocations: the sensitivities are measured once, and every rung is what the allocator makes of one fraction
of the multiply-accumulates.
"""

from onnx_subprune.pruning.budgets.latency import check_latency, latency_seconds, result_timing
from onnx_subprune.pruning.budgets.max_drop import MaxDrop
from onnx_subprune.pruning.budgets.trials import can_be_tried, trials_of
from onnx_subprune.pruning.budgets.widths import Budget, Means, allocated

__all__ = [
    "Budget",
    "MaxDrop",
    "Means",
    "allocated",
    "can_be_tried",
    "check_latency",
    "latency_seconds",
    "result_timing",
    "trials_of",
]
