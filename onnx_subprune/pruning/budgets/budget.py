"""What a user may ask for."""

from dataclasses import dataclass

import numpy as np

from onnx_subprune.allocation import Channels, Latency, Macs, MarginalCost, Params
from onnx_subprune.errors import BudgetError, typed_fields
from onnx_subprune.evaluation.metric import Accuracy, Metric


@typed_fields
@dataclass(frozen=True, slots=True)
class MaxDrop:
    """The smallest model whose metric is at most `drop` below that of the original; 0.01 is one point of accuracy."""

    drop: float
    metric: Metric

    def __post_init__(self) -> None:
        limit = 1.0 if isinstance(self.metric, Accuracy) else np.inf
        if not 0.0 <= self.drop < limit:
            raise BudgetError(
                f"max-drop {self.drop} makes no sense: give how much of the metric may be lost, for example 0.01 for one point of accuracy"
            )


Budget = Macs | Params | Channels | Latency | MaxDrop


def can_be_tried(budget: object, allocator: object) -> bool:
    """True if there are other widths of the same cost to try."""
    return isinstance(budget, Macs | Params | Latency) and isinstance(allocator, MarginalCost)
