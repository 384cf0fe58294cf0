"""Budgets that are met by trying: a drop of a metric, a latency measured here.

Both walk a ladder of allocations: the sensitivities are measured once, and every rung is what the allocator makes of one fraction
of the multiply-accumulates.
"""

from onnx_subprune.budgeting.drop import MaxDrop, metric_sensitivities, within_drop
from onnx_subprune.budgeting.ladder import Allocated, Ladder
from onnx_subprune.budgeting.latency import check_latency, laddered, latency_seconds

__all__ = [
    "Allocated",
    "Ladder",
    "MaxDrop",
    "check_latency",
    "laddered",
    "latency_seconds",
    "metric_sensitivities",
    "within_drop",
]
