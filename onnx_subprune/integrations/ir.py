"""A pass for `onnx_ir`: pruning among the other passes over a model in memory. Needs the package onnx-ir."""

from typing import Any

import onnx_ir

from onnx_subprune.calibration.data.sources import Source
from onnx_subprune.evaluation.report.model import Report
from onnx_subprune.pruning.arguments import BudgetLike
from onnx_subprune.pruning.prune import prune


class PrunePass(onnx_ir.passes.FunctionalPass):
    """Prunes the model that comes in, and hands on a new, smaller one; the report on the last one is in `report`.

    Parameters
    ----------
    data, budget, options
        As in `onnx_subprune.prune`. Data that can be gone through only once, such as a generator, serve one model.

    Raises
    ------
    SubpruneError
        As `prune`, when it is called; a PassManager wraps it in a PassError.

    """

    def __init__(self, data: Source, budget: BudgetLike = 0.5, **options: Any) -> None:
        self.data, self.budget, self.options = data, budget, options
        self.report: Report | None = None

    def call(self, model: onnx_ir.Model) -> onnx_ir.passes.PassResult:
        """Return the smaller model."""
        result = prune(model, self.data, budget=self.budget, **self.options)
        self.report = result.report
        return onnx_ir.passes.PassResult(onnx_ir.from_proto(result.model), modified=True)
