"""A smaller model that is no faster: other widths of the same budget are timed, and the fastest are taken."""

from collections.abc import Callable, Mapping

from onnx_subprune.errors import BudgetError
from onnx_subprune.pruning.budgets.latency_search import Stopwatch
from onnx_subprune.pruning.budgets.rounding import PLAIN, Rounding
from onnx_subprune.runtime.progress import Watch, silent

GLANCE, LOOK = 0.1, 0.5
"""Seconds that widths are timed for at first, and where they seem to be no faster than the original."""
WORTH = 0.95
"""Others are taken where they need at most this share of the time: timings scatter, and equal settings shall give equal models."""

Widths = Mapping[str, int]


def fastest(
    ratio: Stopwatch, rounding: Rounding, widths: Widths, others: Callable[[Rounding], Widths], watch: Watch = silent
) -> Widths:
    """Return `widths` if they are faster than the original, else, of a target, the fastest of them and those in finer multiples.

    others: the widths for the same budget with another rounding; BudgetError where there are none. A rounding that the user names is kept.
    """
    if rounding.target is None:
        return widths
    if ratio(widths, GLANCE) < 1.0:
        return widths
    best, least = widths, ratio(widths, LOOK)
    if least < 1.0:
        return widths
    for number, kind in enumerate((rounding.divided(2), PLAIN)):
        watch("timing other widths", number, 2)
        try:
            found = others(kind)
        except BudgetError:
            continue
        if found != best and (taken := ratio(found, LOOK)) < WORTH * least:
            best, least = found, taken
    return best
