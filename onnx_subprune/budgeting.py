"""Budgets that are met by trying: a drop of a metric, a latency measured here.

Both walk a ladder of allocations: the sensitivities are measured once, and every rung is what the allocator makes of one fraction
of the multiply-accumulates. The rungs are searched by bisection, so a metric or a latency that does not fall with the fraction still gives a
model that meets the budget, only perhaps not the best one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from onnx import ModelProto

from onnx_subprune.allocation import Allocator, Curve, Latency, Multilinear, Room
from onnx_subprune.calibration.fidelity import Runnable
from onnx_subprune.errors import BudgetError, VerificationError
from onnx_subprune.graph.channels import ChannelGroup
from onnx_subprune.graph.site import Rule
from onnx_subprune.measurement import Race
from onnx_subprune.metric import Accuracy, Judge, Metric
from onnx_subprune.reconstruction import reconstruct
from onnx_subprune.sensitivity import GroupSensitivity
from onnx_subprune.surgery import Plan, apply
from onnx_subprune.task import Reconstruction, Task, Watch

STEPS = 6
"""Bisections of the fraction of the multiply-accumulates."""
MULTIPLES = (1, 8, 16)
"""Multiples that a latency budget tries where the user names none: kernels step at them, so that a wider layer can be a faster one."""
MARGIN = 0.97
"""A latency budget aims below the bound by this factor, because the last measurement scatters too."""


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Allocated:
    """Widths of the groups, the sensitivities they come from, and the walk where the search has done it already."""

    widths: Mapping[str, int]
    felt: Mapping[str, GroupSensitivity] = field(default_factory=dict)
    done: Reconstruction | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ladder:
    """The allocations for every fraction of a cost; the curves are measured."""

    rooms: Sequence[Room]
    curves: Mapping[str, Curve]
    cost: Multilinear
    allocator: Allocator

    @property
    def smallest(self) -> dict[str, int]:
        """The smallest widths."""
        return {room.name: room.choices[0] for room in self.rooms}

    def fraction(self, widths: Mapping[str, int]) -> float:
        """Return the share of the cost that is left at these widths."""
        return self.cost(widths) / self.cost({})

    def widths(self, fraction: float) -> dict[str, int]:
        """Return the widths for this share of the cost; BudgetError where there are none."""
        return dict(self.allocator.allocate(self.rooms, self.curves, self.cost, fraction * self.cost({})))

    def rounded(self, multiple: int) -> "Ladder":
        """Return the ladder with widths in multiples of this."""
        rooms = [replace(room, step=int(np.lcm(room.step, multiple))) for room in self.rooms]
        return replace(self, rooms=rooms)


def within_drop(
    budget: MaxDrop, ladder: Ladder, task: Task, judge: Judge, base: float, rules: Mapping[str, Rule]
) -> Allocated:
    """Return the smallest rung whose model, refitted as it will be, is within `budget.drop` of the score `base`."""
    low, high = ladder.fraction(ladder.smallest), 1.0
    best: Allocated | None = None
    gentlest = (low, base)
    for step in range(STEPS):
        task.watch("searching for the smallest model", step, STEPS)
        middle = (low + high) / 2
        widths = ladder.widths(middle)
        done = reconstruct(replace(task, widths=widths))
        score = judge(candidate(task, done, rules))
        if base - score <= budget.drop + 1e-12:
            best, high = Allocated(widths=widths, done=done), middle
        else:
            low, gentlest = middle, (ladder.fraction(widths), score)
    task.watch("searching for the smallest model", STEPS, STEPS)
    if best is None:
        raise BudgetError(
            f"a drop of at most {budget.drop:.4g} cannot be reached: even at {gentlest[0]:.1%} of the multiply-accumulates the metric "
            f"goes from {base:.4f} to {gentlest[1]:.4f}; allow more, or leave sensitive layers alone (--exclude)"
        )
    return best


def candidate(task: Task, done: Reconstruction, rules: Mapping[str, Rule]) -> ModelProto:
    """Return the model that a walk leads to."""
    supports = {name: choice.support for name, choice in done.choices.items()}
    return apply(task.network, task.graph, Plan(supports=supports, weights=done.weights), rules=rules)


def within_latency(
    budget: Latency, ladders: Sequence[Ladder], ratio: Callable[[Mapping[str, int]], float], watch: Watch
) -> dict[str, int]:
    """Return the widths that keep most of the cost among those whose latency is within the budget.

    ratio: the latency at some widths over that of the original.
    """
    total = len(ladders) * (STEPS + 1)
    tried: dict[tuple[int, ...], float] = {}

    def of(widths: Mapping[str, int]) -> float:
        key = tuple(widths.values())
        if key not in tried:
            tried[key] = ratio(widths)
        return tried[key]

    found: list[tuple[float, dict[str, int]]] = []
    steps: Iterator[int] = iter(range(1, total + 1))
    for ladder in ladders:
        widths, (low, high) = ladder.smallest, (ladder.fraction(ladder.smallest), 1.0)
        reached = of(widths) <= budget.fraction
        for _ in range(STEPS):
            watch("measuring latencies", next(steps), total)
            if reached:
                middle = (low + high) / 2
                trial = ladder.widths(middle)
                if of(trial) <= budget.fraction * MARGIN:
                    low, widths = middle, trial
                else:
                    high = middle
        watch("measuring latencies", next(steps), total)
        if reached:
            found.append((ladder.fraction(widths), widths))
    if not found:
        raise BudgetError(
            f"the latency {budget.fraction:.4g} cannot be reached: the least measured here is {min(tried.values()):.3g} of the original's; "
            "allow more, or prune more of it (--only, --exclude, --min-width, --round-to)"
        )
    return max(found, key=lambda item: item[0])[1]


def latency_ratio(task: Task, race: Race, rules: Mapping[str, Rule]) -> Callable[[Mapping[str, int]], float]:
    """Return what measures the latency at some widths over that of the original; which channels and weights does not matter for time."""

    def ratio(widths: Mapping[str, int]) -> float:
        supports = {name: first_channels(task.graph.group(name), width) for name, width in widths.items()}
        model = apply(task.network, task.graph, Plan(supports=supports), rules=rules)
        before, after = race(Runnable(model, task.network.folder))
        return after / before

    return ratio


def first_channels(group: ChannelGroup, width: int) -> tuple[int, ...]:
    """Return the first channels of a group, equally many of each cell."""
    cells = group.cells
    count = int(cells.max()) + 1
    return tuple(sorted(int(i) for cell in range(count) for i in np.flatnonzero(cells == cell)[: width // count]))


def check_latency(budget: object, before: float, after: float) -> None:
    """Raise VerificationError if the budget bounds the latency and the model misses it."""
    if isinstance(budget, Latency) and after > budget.fraction * before:
        raise VerificationError(
            f"the pruned model takes {after:.4g} ms, {after / before:.3g} of the original's {before:.4g} ms, and misses its bound of "
            f"{budget.fraction:.4g}: nothing was written; try again on a quieter machine, a smaller --latency, or --round-to 16"
        )
