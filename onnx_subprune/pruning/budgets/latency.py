"""Widths whose latency, measured here, is within a bound."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from onnx_subprune.allocation import Latency
from onnx_subprune.errors import BudgetError, VerificationError
from onnx_subprune.evaluation.latency import Race
from onnx_subprune.evaluation.timing import Timing
from onnx_subprune.graph.channels import ChannelGroup
from onnx_subprune.graph.cost import costs
from onnx_subprune.graph.rules.vocabulary import Rule
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.pruning.budgets.ladder import Ladder
from onnx_subprune.pruning.rounding import PLAIN, Rounding
from onnx_subprune.reconstruction.task import Task
from onnx_subprune.runtime.progress import Watch
from onnx_subprune.runtime.session import Runnable

FINER = (1, 2)
"""By how much the multiples of a target are divided for the ladders of a latency budget; one more has any width."""
RUNGS, BISECTIONS = 10, 3
"""Fractions that a latency budget measures, and how often the gap above the best of them is halved."""
SHORT, LONG, REPORTED = 0.5, 2.0, 0.25
"""Seconds that a latency is measured for while searching, before it is believed, and where it is only reported."""
NEAR = 1.1
"""A short measurement that misses the bound by less than this factor is not believed."""
MARGIN = 0.92
"""A latency budget aims below the bound by this factor, because the last measurement scatters too, by several per cent on a busy machine."""


Loss = Callable[[Mapping[str, int]], float]
"""What widths are likely to lose; ladders with costs of their own are compared by it."""


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


def within_latency(
    budget: Latency, ladders: Sequence[Ladder], loss: Loss, ratio: Stopwatch, watch: Watch
) -> Mapping[str, int]:
    """Return the widths with the least `loss` among those on `ladders` whose latency is within the budget.

    Latency does not rise evenly with the widths, and short measurements scatter: so all rungs are measured, what came near the bound is
    measured again for longer, the least loss first, and the gap to the next rung is bisected.
    """
    bound = budget.fraction * MARGIN
    rungs = _climbed(ladders, ratio, watch)
    hopeful = sorted((rung for rung in rungs if rung.short <= bound * NEAR), key=lambda rung: loss(rung.widths))
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


def stopwatch(task: Task, rules: Mapping[str, Rule]) -> Stopwatch:
    """Return what measures widths; which channels stay, and the weights, do not matter for time."""
    races: list[Race] = []

    def ratio(widths: Mapping[str, int], seconds: float) -> float:
        supports = {name: first_channels(task.graph.group(name), width) for name, width in widths.items()}
        model = apply(task.network, task.graph, Plan(supports=supports), rules=rules)
        if not races:  # widths that nobody asks for cost no session
            races.append(Race(Runnable(task.network.proto, task.network.folder), task.data, task.running.threads))
        return races[0](Runnable(model, task.network.folder), seconds).ratio

    return ratio


def first_channels(group: ChannelGroup, width: int) -> tuple[int, ...]:
    """Return the first channels of a group, equally many of each cell."""
    cells = group.cells
    count = int(cells.max()) + 1
    return tuple(sorted(int(i) for cell in range(count) for i in np.flatnonzero(cells == cell)[: width // count]))


def latency_seconds(budget: object) -> float:
    """Return how long to measure the result."""
    return LONG if isinstance(budget, Latency) else REPORTED


def check_latency(budget: object, found: Timing) -> None:
    """Raise VerificationError if the budget bounds the latency and the model misses it."""
    if isinstance(budget, Latency) and found.ratio > budget.fraction:
        raise VerificationError(
            f"the pruned model takes {found.after:.4g} ms, {found.ratio:.3g} of the original's {found.before:.4g} ms, and misses its bound of "
            f"{budget.fraction:.4g}: nothing was written; try again on a quieter machine, a smaller --latency, or --round-to 16"
        )


def laddered(
    budget: Latency, ladder: Ladder, task: Task, rules: Mapping[str, Rule], rounding: Rounding
) -> Mapping[str, int]:
    """Return the widths for a latency budget, in the multiples that are asked for, or those of a target, parts of these, and any.

    Each has a ladder of its own, along the work of kernels with such blocks.
    """
    kinds = (rounding,) if rounding.target is None else (*(rounding.divided(by) for by in FINER), PLAIN)
    ladders = [
        replace(
            ladder,
            rooms=kind.again(task.graph, ladder.rooms),
            cost=costs(task.network, task.graph, rounding.block).work,
        )
        for kind in kinds
    ]
    return within_latency(budget, ladders, ladder.loss, stopwatch(task, rules), task.watch)
