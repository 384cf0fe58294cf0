"""Budgets that are met by trying: a drop of a metric, a latency measured here.

Both walk a ladder of allocations: the sensitivities are measured once, and every rung is what the allocator makes of one fraction
of the multiply-accumulates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

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
RUNGS, BISECTIONS = 10, 2
"""Fractions that a latency budget measures, and how often the gap above the best of them is halved."""
SHORT, LONG = 0.5, 2.0
"""Seconds that a latency is measured for while searching, and before it is believed."""
NEAR = 1.1
"""A short measurement that misses the bound by less than this factor is not believed."""
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


class Stopwatch(Protocol):
    """Measures the latency at some widths over that of the original, for about so many seconds."""

    def __call__(self, widths: Mapping[str, int], seconds: float) -> float:
        """Return the ratio."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rung:
    ladder: Ladder
    fraction: float
    widths: Mapping[str, int]
    short: float


def within_latency(budget: Latency, ladders: Sequence[Ladder], ratio: Stopwatch, watch: Watch) -> Mapping[str, int]:
    """Return the widths that keep most of the cost among those whose latency is within the budget.

    Latency does not rise evenly with the widths, and short measurements scatter: so all rungs are measured, what came near the bound is
    measured again for longer, the widest first, and the gap to the next rung is bisected.
    """
    bound = budget.fraction * MARGIN
    rungs = _climbed(ladders, ratio, watch)
    hopeful = sorted((rung for rung in rungs if rung.short <= bound * NEAR), key=lambda rung: -rung.fraction)
    for number, rung in enumerate(hopeful):
        watch("confirming latencies", number, len(hopeful))
        if ratio(rung.widths, LONG) <= bound:
            return _bisected(rung, bound, ratio)
    raise BudgetError(
        f"the latency {budget.fraction:.4g} cannot be reached: the least measured here is {min(r.short for r in rungs):.3g} of the original's; "
        "allow more, or prune more of it (--only, --exclude, --min-width, --round-to)"
    )


def _climbed(ladders: Sequence[Ladder], ratio: Stopwatch, watch: Watch) -> list[_Rung]:
    """All rungs of all ladders, measured shortly; equal widths once."""
    rungs: dict[tuple[int, ...], _Rung] = {}
    for number, ladder in enumerate(ladders):
        least = ladder.fraction(ladder.smallest)
        for place in range(RUNGS):
            watch("measuring latencies", number * RUNGS + place, len(ladders) * RUNGS)
            fraction = least + (1.0 - least) * place / RUNGS
            widths = ladder.widths(fraction) if place else ladder.smallest
            key = tuple(widths.values())
            if key not in rungs:
                rungs[key] = _Rung(ladder=ladder, fraction=fraction, widths=widths, short=ratio(widths, SHORT))
    return list(rungs.values())


def _bisected(rung: _Rung, bound: float, ratio: Stopwatch) -> Mapping[str, int]:
    """The widest widths within `bound` between a rung and the next one of its ladder."""
    ladder, best = rung.ladder, rung.widths
    low, high = rung.fraction, rung.fraction + (1.0 - ladder.fraction(ladder.smallest)) / RUNGS
    for _ in range(BISECTIONS):
        widths = ladder.widths((low + high) / 2)
        if widths == best or ratio(widths, LONG) <= bound:
            low, best = (low + high) / 2, widths
        else:
            high = (low + high) / 2
    return best


def latency_ratio(task: Task, race: Race, rules: Mapping[str, Rule]) -> Stopwatch:
    """Return what measures widths; which channels stay, and the weights, do not matter for time."""

    def ratio(widths: Mapping[str, int], seconds: float) -> float:
        supports = {name: first_channels(task.graph.group(name), width) for name, width in widths.items()}
        model = apply(task.network, task.graph, Plan(supports=supports), rules=rules)
        before, after = race(Runnable(model, task.network.folder), seconds)
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
