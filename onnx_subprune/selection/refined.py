"""The best of forward selection and backward elimination, then exchanges while the error falls."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_subprune._typing import Float64, Int64
from onnx_subprune.errors import typed_fields
from onnx_subprune.selection.backward import Backward
from onnx_subprune.selection.forward import Forward
from onnx_subprune.selection.linalg.compression import is_wide
from onnx_subprune.selection.linalg.elimination import Elimination
from onnx_subprune.selection.linalg.ridge import pseudo_solve
from onnx_subprune.selection.problem import Problem, Support
from onnx_subprune.selection.selector import Choice, mean_error, pick, presence_of

ROUNDED = 1e-12
"""Errors that differ by less, as a share of the energy, are equal: what is chosen by rounding may be anything."""


@typed_fields
@dataclass(frozen=True, slots=True)
class Refined:
    """Never worse than `Forward` on the objective.

    exchanges: how many swaps at most; each costs one factorization. columns: problems with more, counted over all consumers, are not
    exchanged, and eliminated backwards only where most channels stay: that takes four times as long as forward selection, and finds the same where
    half of them go. widest: problems with more columns are never eliminated backwards.
    """

    exchanges: int = 8
    columns: int = 1200
    widest: int = 2400

    def path(
        self, problems: Sequence[Problem], sizes: Sequence[int], cells: Int64, threads: int = 1
    ) -> tuple[Choice, ...]:
        """See `Selector`."""
        largest, most_stay = max(len(problem.gram) for problem in problems), 2 * max(sizes) > problems[0].width
        if largest > (self.widest if most_stay else self.columns):
            found = Forward(brief=True).path(problems, sizes, cells, threads)
            if any(is_wide(problem.gram, problem.columns.size, problem.block) for problem in problems):
                return tuple(replace(choice, error=mean_error(problems, choice.support)) for choice in found)
            return found
        forward, backward = _both_ways(problems, sizes, cells, threads)
        best = [
            back if back.error < ahead.error - ROUNDED else ahead for ahead, back in zip(forward, backward, strict=True)
        ]
        if max(len(problem.gram) for problem in problems) * len(problems) > self.columns:
            return tuple(best)
        return tuple(self._exchanged(problems, choice, cells) for choice in best)

    def _exchanged(self, problems: Sequence[Problem], choice: Choice, cells: Int64) -> Choice:
        for _ in range(self.exchanges if len(choice.support) < problems[0].width else 0):
            swapped = _swap(problems, choice.support, cells)
            error = mean_error(problems, swapped)
            if error >= choice.error * (1 - 1e-9) - ROUNDED:
                break
            choice = Choice(swapped, error)
        return choice


def _both_ways(
    problems: Sequence[Problem], sizes: Sequence[int], cells: Int64, threads: int
) -> tuple[tuple[Choice, ...], tuple[Choice, ...]]:
    """What forward selection and backward elimination choose, side by side."""
    if threads < 2:
        return Forward().path(problems, sizes, cells), Backward().path(problems, sizes, cells)
    with ThreadPoolExecutor(1) as pool:
        forward = pool.submit(Forward().path, problems, sizes, cells)
        backward = Backward().path(problems, sizes, cells, threads)
        return forward.result(), backward


def _swap(problems: Sequence[Problem], support: Support, cells: Int64) -> Support:
    """Remove the cheapest channel, then add the best one of its cell."""
    inside = np.zeros(problems[0].width, bool)
    inside[list(support)] = True
    costs = np.zeros(len(inside))
    for problem in problems:
        costs += _scale(problem) * _costs(problem, support)
    presence = presence_of(problems)
    out = pick(costs, inside, largest=False, presence=presence)
    inside[out] = False
    gains = np.zeros(len(inside))
    for problem in problems:
        gains += _scale(problem) * _gains(problem, inside)
    inside[pick(gains, ~inside & (cells == cells[out]), largest=True, presence=presence)] = True
    return tuple(np.flatnonzero(inside).tolist())


def _gains(problem: Problem, inside: NDArray[np.bool_]) -> Float64:
    """What each channel that is not `inside` would add to those that are, (w,)."""
    gram, cross, _ = problem.beside(np.flatnonzero(inside).tolist())
    gains = np.zeros(len(inside))
    gains[~inside] = Elimination(gram, cross, problem.block).gains()
    return gains


def _scale(problem: Problem) -> float:
    """Return what makes a consumer's loss relative; a target that is nothing but rounding has no say."""
    return problem.weight / problem.energy if problem.energy > 0 else 0.0


def _costs(problem: Problem, support: Support) -> np.ndarray:
    """What each channel of `support` costs to remove, (w,), the rest refitted."""
    kept = problem.kept(support)
    gram = problem.gram[np.ix_(kept, kept)]
    inverse = pseudo_solve(gram, np.eye(len(kept)))
    weights = inverse @ problem.cross[kept]
    costs = np.zeros(problem.width)
    for channel in support:
        own = np.searchsorted(kept, problem.columns[channel])
        part = weights[own]
        costs[channel] = np.sum(part * pseudo_solve(inverse[np.ix_(own, own)], part))
    return costs
