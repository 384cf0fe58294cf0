"""Which multiples a budget of multiply-accumulates is met in: those in which the least is lost, of those that take the time which goes with it.

Whole blocks are a coarse grid for narrow groups, and what goes to the next of them may be what the network lives on; smaller multiples leave more where
it counts, and kernels pad them, which may cost all that they save. Losses are predicted, times are measured.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from onnx_subprune.allocation import Room
from onnx_subprune.errors import BudgetError
from onnx_subprune.pruning.budgets.ladder import Ladder
from onnx_subprune.pruning.budgets.latency_search import Stopwatch
from onnx_subprune.runtime.progress import Watch

SLOPE, BESIDE = 1.1, 0.02
"""A budget of a share takes at most so much of the time: `SLOPE` times the share, and `BESIDE`."""
LESS = 0.9
"""Others than whole blocks are taken where they lose at most this share of what those lose."""
LOOK = 0.5
"""Seconds that widths are timed for."""


def best_grid(
    ladder: Ladder, fraction: float, finer: Iterable[Sequence[Room]], ratios: Sequence[Stopwatch], watch: Watch
) -> Ladder:
    """Return the ladder, or one with some of the `finer` rooms. ratios: measure the time of widths, in units of the original's, of batches and one sample."""
    if ladder.loses_nothing(fraction):
        return ladder
    widths = ladder.widths(fraction)
    lost, found = ladder.loss(widths), list[tuple[float, Ladder]]()
    known = [widths]
    for rooms in finer:
        other = replace(ladder, rooms=rooms)
        with suppress(BudgetError):
            widths = other.widths(fraction)
            if widths not in known and other.loss(widths) <= LESS * lost:
                found.append((other.loss(widths), other))
            known.append(widths)
    for number, (_, other) in enumerate(sorted(found, key=lambda item: item[0])):
        watch("timing widths", number, len(found))
        widths, goal = other.widths(fraction), SLOPE * fraction + BESIDE
        if all(ratio(widths, LOOK) <= goal for ratio in ratios):
            return other
    return ladder
