"""The search for the best strength of a ridge: it begins where that is likely, and goes downhill."""

from collections.abc import Callable, Sequence

import numpy as np

LIKELY = 1 / 3
"""The best strength is most often near this many times the number of columns for a row; the search begins there."""


def likely(strengths: Sequence[float], columns: int, rows: float) -> int:
    """Return which of `strengths`, which rise, is most likely the best for so many columns and rows."""
    guess = np.log(max(LIKELY * columns / rows, 1e-300))
    return int(np.argmin(np.abs(np.log(np.maximum(strengths, 1e-300)) - guess)))


def downhill(loss: Callable[[int], float], count: int, start: int) -> tuple[int, float]:
    """Return the place below `count` with the least loss downhill from `start`, and that loss: a handful of fits instead of all."""
    losses: dict[int, float] = {}

    def known(place: int) -> float:
        if not 0 <= place < count:
            return float("inf")
        if place not in losses:
            losses[place] = loss(place)
        return losses[place]

    best = start
    while known(better := min((best - 1, best + 1), key=known)) < known(best):
        best = better
    return best, known(best)
