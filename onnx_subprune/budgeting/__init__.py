"""Budgets that are met by trying: a drop of a metric, a latency measured here.

Both walk a ladder of allocations: the sensitivities are measured once, and every rung is what the allocator makes of one fraction
of the multiply-accumulates.
"""

from onnx_subprune.budgeting.allocated import Budget, allocated
from onnx_subprune.budgeting.drop import MaxDrop
from onnx_subprune.budgeting.latency import check_latency, latency_seconds
from onnx_subprune.budgeting.trials import check_trials, trials_of

__all__ = [
    "Budget",
    "MaxDrop",
    "allocated",
    "check_latency",
    "check_trials",
    "latency_seconds",
    "trials_of",
]
