"""Budgets that are met by trying: a drop of a metric, a latency measured here.

Both walk a ladder of allocations: the sensitivities are measured once, and every rung is what the allocator makes of one fraction
of the multiply-accumulates.
"""

from onnx_subprune.budgeting.allocated import Budget, allocated
from onnx_subprune.budgeting.drop import MaxDrop
from onnx_subprune.budgeting.latency import check_latency, latency_seconds
from onnx_subprune.budgeting.trials import can_be_tried, trials_of

__all__ = [
    "Budget",
    "MaxDrop",
    "allocated",
    "can_be_tried",
    "check_latency",
    "latency_seconds",
    "trials_of",
]
