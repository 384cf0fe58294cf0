"""The widths that lose least of those that are measured to be within a latency."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from onnx_subprune.allocation import Latency
from onnx_subprune.errors import BudgetError
from onnx_subprune.pruning.budgets.ladder import Ladder
from onnx_subprune.runtime.progress import Watch

ATTEMPTS = 5
"""Widths that are measured at most: each aims at what the ones before it missed the bound by."""
MARGIN = 0.99
"""The search stays below the bound by this factor, because the model that is made in the end is measured again."""
NEAR = 0.97
"""Widths that take this much of what is allowed are near enough."""
DOUBT = 0.08
"""Widths that seem to be beyond the bound by less than this share are measured once more: on a busy machine latencies scatter by as much."""
CAREFUL = 0.97
"""Where the model that is made in the end is beyond the bound all the same, the search stays below it by this factor."""

Widths = Mapping[str, int]


class Stopwatch(Protocol):
    """Measures the latency at some widths over that of the original, for about so many seconds."""

    def __call__(self, widths: Widths, seconds: float) -> float:
        """Return the ratio."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Search:
    """Looks for the widths with the least loss among those that are measured to be within `budget`; `ladder.cost` predicts their time.

    seconds: how long widths are measured. measured: widths with their predicted and their measured share of the original's time.
    """

    budget: Latency
    ladder: Ladder
    ratio: Stopwatch
    watch: Watch
    seconds: float
    measured: list[tuple[Widths, float, float]] = field(default_factory=list)

    def widths(self) -> Widths:
        """Return these widths; BudgetError if none are within, naming the least that was measured."""
        return self._within(self.budget.fraction * MARGIN)

    def instead(self, widths: Widths, found: float) -> Widths:
        """Return others, where the whole model at `widths` was measured to take `found` of the original's time; BudgetError if there are none."""
        predicted = self.ladder.fraction(widths)
        self.measured[:] = [item for item in self.measured if item[0] != widths]
        self.measured.append((widths, predicted, found))
        return self._within(self.budget.fraction * CAREFUL)

    def _within(self, bound: float) -> Widths:
        aim = self._next(bound, bound) if self.measured else bound
        for attempt in range(ATTEMPTS):
            self.watch("measuring latencies", attempt, ATTEMPTS)
            try:
                widths: Widths = self.ladder.widths(aim)
            except BudgetError:
                widths = self.ladder.smallest
            if any(widths == known for known, _, _ in self.measured):
                break
            found = self._measured(widths, bound)
            self.measured.append((widths, self.ladder.fraction(widths), found))
            if NEAR * bound <= found <= bound:
                break
            aim = self._next(bound, aim)
        fitting = [widths for widths, _, found in self.measured if found <= bound]
        if not fitting:
            raise BudgetError(self._unreachable(bound))
        return min(fitting, key=self.ladder.loss)

    def _measured(self, widths: Widths, bound: float) -> float:
        found = self.ratio(widths, self.seconds)
        return found if not bound < found <= bound * (1.0 + DOUBT) else (found + self.ratio(widths, self.seconds)) / 2

    def _next(self, bound: float, aim: float) -> float:
        """Return the share to aim at after `aim`: by what its widths missed the bound, and below what was predicted of all that are too slow."""
        _, predicted, found = self.measured[-1]
        base = (
            aim if found <= bound else predicted
        )  # what widths of blocks leave of an aim is no use to the next wider ones
        slow = [share * (1.0 - 1e-9) for _, share, spent in self.measured if spent > bound]
        return min([base * bound / found, 0.999, *slow])

    def _unreachable(self, bound: float) -> str:
        least, room = min(found for _, _, found in self.measured), ""
        if least <= self.budget.fraction:
            room = f", and {bound:.3g} is aimed at, since the last measurement scatters too"
        return (
            f"the latency {self.budget.fraction:.4g} cannot be reached: the least measured here is {least:.3g} of the original's{room}; "
            "allow more, or prune more of it (--only, --exclude, --min-width, --round-to)"
        )
