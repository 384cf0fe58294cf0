"""What a selector is, and what it returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onnx_subprune._typing import Float64, Int64
from onnx_subprune.selection.linalg.elimination import NOTHING
from onnx_subprune.selection.problem import Problem, Support


@dataclass(frozen=True, slots=True)
class Choice:
    """A support and the relative squared error of its best weights, averaged over the consumers by their weight.

    conditioning: see `conditioning`; None where it was not asked for, or would take long. data: how much of what was known of channels together came
    from the data, the rest being noise that the energies of channels and weights stand in for; None where that was not asked.
    """

    support: Support
    error: float
    conditioning: float | None = None
    data: float | None = None


class Selector(Protocol):
    """Chooses channels of one group from the problems of all its consumers."""

    def path(
        self, problems: Sequence[Problem], sizes: Sequence[int], cells: Int64, threads: int = 1
    ) -> tuple[Choice, ...]:
        """Return a choice for each of `sizes`, in their order.

        cells: (w,) int64; every support holds equally many channels of each cell, so sizes are multiples of their number.
        threads: how many may work side by side; what is chosen does not depend on it.
        """


def mean_error(problems: Sequence[Problem], support: Sequence[int]) -> float:
    """Return the weighted mean of the consumers' relative errors."""
    total = sum(problem.weight for problem in problems)
    return sum(problem.weight * problem.error(support) for problem in problems) / total


EQUAL = 1e-6
"""Presences that differ by less than this share of them are equal: they are sums of products in float32."""
LARGE = 800
"""Columns above which the eigenvalues of a Gram are not computed."""


def conditioning(problems: Sequence[Problem], support: Sequence[int]) -> float | None:
    """Return the least ratio, over the consumers, of smallest to largest eigenvalue of the Gram of the chosen columns.

    None where one of the Grams is large, or has nothing in it.
    """
    ratios = []
    for problem in problems:
        columns = problem.columns[np.asarray(support, np.int64)].ravel()
        if not 0 < len(columns) <= LARGE:
            return None
        values = np.linalg.eigvalsh(problem.gram[np.ix_(columns, columns)])
        ratios.append(max(float(values[0]), 0.0) / float(values[-1]) if values[-1] > 0.0 else 0.0)
    return min(ratios, default=None)


def ranked(problems: Sequence[Problem], scores: np.ndarray, sizes: Sequence[int], cells: Int64) -> tuple[Choice, ...]:
    """Return the channels with the highest scores, equally many of each cell; ties go to the lowest index."""
    order = np.argsort(-scores, kind="stable")
    choices = []
    for size in sizes:
        each = size // (int(cells.max()) + 1)
        support = tuple(
            sorted(int(i) for cell in range(int(cells.max()) + 1) for i in order[cells[order] == cell][:each])
        )
        choices.append(Choice(support, mean_error(problems, support)))
    return tuple(choices)


def presence_of(problems: Sequence[Problem]) -> Float64:
    """Return the share of the consumers' energy that each channel brings as it is, (w,): zero for channels that are dead to all of them."""
    total = np.zeros(problems[0].width)
    for problem in problems:
        if problem.presence is not None:
            total += problem.presence * (problem.weight / problem.energy if problem.energy > 0.0 else problem.weight)
    return total


def with_all_live(problems: Sequence[Problem], choice: Choice, cells: Int64) -> Choice:
    """Return the choice with every channel that brings anything, where there is room for all of them; else as it is.

    Nothing is lost then, on any data. On few samples others may do as well up to rounding, and fail elsewhere.
    """
    if any(problem.presence is None for problem in problems):
        return choice
    live, chosen, count = presence_of(problems) > 0.0, np.zeros(len(cells), bool), int(cells.max()) + 1
    chosen[list(choice.support)] = True
    each = len(choice.support) // count
    if np.all(chosen[live]) or np.bincount(cells[live], minlength=count).max() > each:
        return choice
    order = np.lexsort((~chosen, ~live))
    support = tuple(sorted(int(i) for cell in range(count) for i in order[cells[order] == cell][:each]))
    return Choice(support, mean_error(problems, support))


def pick(values: Float64, allowed: NDArray[np.bool_], *, largest: bool, presence: Float64 | None = None) -> int:
    """Return the allowed index with the largest (smallest) value.

    Values equal up to rounding go to the largest (smallest) `presence`, so that no dead channel is kept in place of a live one; then to the
    lowest index.
    """
    signed = np.where(allowed, values if largest else -values, -np.inf)
    best = float(signed.max())
    equal = np.flatnonzero(signed >= best - 1e-10 * abs(best) - NOTHING)
    if presence is not None and len(equal) > 1:
        there = presence[equal]
        equal = equal[there >= there.max() * (1 - EQUAL) if largest else there <= there.min() * (1 + EQUAL)]
    return int(equal[0])


def level(cells: Int64, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mask of the channels whose cell has the fewest chosen so far: taking only those keeps the cells level."""
    counts = np.bincount(cells[chosen], minlength=int(cells.max()) + 1)
    return np.asarray((counts[cells] == counts.min()) & ~chosen)
