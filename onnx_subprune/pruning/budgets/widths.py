"""Widths for any budget: by allocation alone, or by trying."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from onnx_subprune.allocation import (
    Allocator,
    BlockAware,
    Channels,
    Curve,
    Latency,
    Macs,
    MarginalCost,
    Params,
    Room,
    Threshold,
    block_aware,
    proportional,
)
from onnx_subprune.allocation.widths import GroupSensitivity
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.evaluation.metric import Judged
from onnx_subprune.graph.costs.costs import Costs
from onnx_subprune.graph.rules.vocabulary import Rule
from onnx_subprune.graph.targets import this_machine
from onnx_subprune.pruning.budgets.budget import Budget, MaxDrop
from onnx_subprune.pruning.budgets.faster import fastest
from onnx_subprune.pruning.budgets.grids import best_grid
from onnx_subprune.pruning.budgets.ladder import Allocated, Ladder, filled_up
from onnx_subprune.pruning.budgets.latency import stopwatch, timed_widths
from onnx_subprune.pruning.budgets.lossless import lossless_widths
from onnx_subprune.pruning.budgets.max_drop import metric_sensitivities, within_drop
from onnx_subprune.pruning.budgets.rounding import PLAIN, Rounding
from onnx_subprune.pruning.budgets.sensitivity import sensitivities
from onnx_subprune.pruning.budgets.starts import best_ladder, tried
from onnx_subprune.pruning.budgets.trials import Trials
from onnx_subprune.pruning.budgets.unused import WORTH, used_up
from onnx_subprune.reconstruction.task import Task


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Means:
    """What widths are found with.

    price: costs at any widths. rounding: what `rooms` are rounded to. trials: what to try widths of a fixed cost on, None for nothing.
    judged: a metric that chooses. candidates: what candidates are fitted to where it does, None for the data of the task.
    """

    price: Costs
    rounding: Rounding
    rules: Mapping[str, Rule]
    judged: Judged | None = None
    trials: Trials | None = None
    candidates: Calibration | None = None


def allocated(task: Task, rooms: Sequence[Room], budget: Budget, allocator: Allocator, means: Means) -> Allocated:
    """Return the widths that meet `budget`; a budget that is met by trying brings its walk with it."""
    price, rounding, rules, judged = means.price, means.rounding, means.rules, means.judged
    if isinstance(budget, Channels):

        def shared_out(kind: Rounding) -> Mapping[str, int]:
            return proportional(kind.again(task.graph, rooms), budget.fraction, upwards=rounding.upwards)

        first, shares = rounding.shared(task.graph, rooms, budget.fraction)
        return Allocated(widths=fastest(stopwatch(task, rules), first, shares, shared_out, task.watch))
    sensitivity: Mapping[str, GroupSensitivity] = {}
    curves: dict[str, Curve] = {}
    if isinstance(allocator, MarginalCost):
        sensitivity = sensitivities(task, rooms)
        curves = {name: item.output for name, item in sensitivity.items()}
    elif isinstance(allocator, Threshold):
        sensitivity = metric_sensitivities(task, rooms, judged, rules)
        curves = {name: item.output for name, item in sensitivity.items()}
    rooms = [room.at_least(sensitivity[room.name].least) if room.name in sensitivity else room for room in rooms]
    known = {name: item.lossless for name, item in sensitivity.items() if item.lossless is not None}
    lossless = known if sensitivity else lossless_widths(task, rooms)
    cost = price.params if isinstance(budget, Params) else price.macs
    if isinstance(budget, Macs):
        allocator = block_aware(allocator, price.work, rounding.block, price.folded)
    ladder = Ladder(rooms=rooms, curves=curves, cost=cost, allocator=allocator, lossless=lossless)
    if isinstance(budget, MaxDrop):
        assert judged is not None, "the budget has a metric"
        return replace(within_drop(budget, ladder, task, judged, rules, means.candidates), sensitivity=sensitivity)
    if isinstance(budget, Latency):
        better = partial(best_ladder, fraction=budget.fraction, task=task, trials=means.trials, rules=rules)
        return replace(timed_widths(budget, ladder, task, rules, better), sensitivity=sensitivity)

    def other(kind: Rounding) -> Mapping[str, int]:
        return replace(ladder, rooms=kind.again(task.graph, rooms)).widths(budget.fraction)

    ladder = ladder.losing_nothing(rounding, task.graph, budget.fraction)
    if rounding.target is not None and rounding.target == this_machine():
        ladder = used_up(ladder, budget.fraction, stopwatch(task, rules), task.watch)
    finer = [kind.again(task.graph, rooms) for kind in (*rounding.padded, PLAIN)]
    if rounding.target is not None and rounding.target == this_machine() and ladder.cost({}) >= WORTH:
        watches = [stopwatch(task, rules, samples=samples) for samples in ((None,) if task.data.fixed else (1, None))]
        ladder = best_grid(ladder, budget.fraction, finer, watches, task.watch)
    else:
        ladder = filled_up(ladder, budget.fraction, finer[:-1])
    exact = ladder.loses_nothing(budget.fraction)
    if means.trials is not None and isinstance(allocator, (MarginalCost, BlockAware)) and not exact:
        widths: Mapping[str, int] = tried(ladder, budget.fraction, task, means.trials, rules)
    else:
        widths = ladder.widths(budget.fraction)
    return Allocated(
        widths=fastest(stopwatch(task, rules), rounding, widths, other, task.watch), sensitivity=sensitivity
    )
