"""The smallest model whose metric drops by at most so much, and what single groups cost of a metric."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from onnx_subprune.allocation import Room
from onnx_subprune.allocation.widths import GroupSensitivity
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.errors import BudgetError, OptionError
from onnx_subprune.evaluation.metric import Accuracy, Judged
from onnx_subprune.graph.rules.vocabulary import Rule
from onnx_subprune.graph.surgery.surgery import apply
from onnx_subprune.pruning.budgets.budget import MaxDrop
from onnx_subprune.pruning.budgets.ladder import Allocated, Ladder, candidate
from onnx_subprune.pruning.budgets.sensitivity import sensitivities
from onnx_subprune.reconstruction.domain import DomainError
from onnx_subprune.reconstruction.reconstruct import reconstruct
from onnx_subprune.reconstruction.task import Task

STEPS = 6
"""Bisections of the fraction of the multiply-accumulates."""


def within_drop(
    budget: MaxDrop,
    ladder: Ladder,
    task: Task,
    judged: Judged,
    rules: Mapping[str, Rule],
    candidates: Calibration | None = None,
) -> Allocated:
    """Return the smallest rung whose model, refitted as it will be, is within `budget.drop` of the original's score.

    candidates: data that those models are fitted to, so that they are judged on others; None for the data of `task`, whose walk is then
    brought along.
    """
    base, (low, high) = judged.base, (ladder.fraction(ladder.smallest), 1.0)
    trial = task if candidates is None or not isinstance(budget.metric, Accuracy) else replace(task, data=candidates)
    best: Allocated | None = None
    gentlest = (low, base)
    for step in range(STEPS):
        task.watch("searching for the smallest model", step, STEPS)
        middle = (low + high) / 2
        widths = ladder.widths(middle)
        try:
            done = reconstruct(replace(trial, widths=widths))
        except DomainError:  # such widths are not allowed
            low = middle
            continue
        score = judged.judge(candidate(trial, done, rules))
        if base - score <= budget.drop + 1e-12:
            best, high = Allocated(widths=widths, done=done if trial is task else None), middle
        else:
            low, gentlest = middle, (ladder.fraction(widths), score)
    task.watch("searching for the smallest model", STEPS, STEPS)
    if best is None:
        raise BudgetError(
            f"a drop of at most {budget.drop:.4g} cannot be reached: even at {gentlest[0]:.1%} of the multiply-accumulates the metric "
            f"goes from {base:.4f} to {gentlest[1]:.4f}; allow more, or leave sensitive layers alone (--exclude)"
        )
    return best


def metric_sensitivities(
    task: Task, rooms: Sequence[Room], judged: Judged | None, rules: Mapping[str, Rule]
) -> dict[str, GroupSensitivity]:
    """Return the drop of the metric when one group alone gets narrower; OptionError without a metric."""
    if judged is None:
        raise OptionError("the allocation `threshold` needs a metric: --labels y.npy, or --validate script.py:function")
    judge, base = judged.judge, judged.base
    return sensitivities(task, rooms, lambda plan: base - judge(apply(task.network, task.graph, plan, rules=rules)))
