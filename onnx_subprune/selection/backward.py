"""Backward elimination: the optimal brain surgeon by blocks (OSSCAR, ICML 2024), on moments."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnx_subprune._typing import Float64, Int64
from onnx_subprune.errors import typed_fields
from onnx_subprune.selection.linalg.elimination import Elimination
from onnx_subprune.selection.linalg.lapack import cholesky, inverted
from onnx_subprune.selection.linalg.lowrank import Gram, LowRank
from onnx_subprune.selection.linalg.ridge import scales
from onnx_subprune.selection.problem import Problem
from onnx_subprune.selection.selector import Choice, level, mean_error, pick, presence_of

CHUNK = 512
"""Rows that are mirrored at once."""


@typed_fields
@dataclass(frozen=True, slots=True)
class Backward:
    """Remove the channel that costs least until few enough are left; better than forward when most stay.

    ridge: pull on the diagonal that makes the gram invertible, columns scaled to an energy of about 1.
    """

    ridge: float = 1e-6

    def path(
        self, problems: Sequence[Problem], sizes: Sequence[int], cells: Int64, threads: int = 1
    ) -> tuple[Choice, ...]:
        """See `Selector`. The cost of a channel is the share of each consumer's energy lost with it, the rest refitted."""
        states, shares = [], []
        for problem in problems:
            gram, cross, _ = problem.reduced()
            even = scales(gram)
            inverse = _inverse(_scaled(gram, even), self.ridge)
            crossed = inverse @ (cross * even[:, None])
            states.append(Elimination(inverse, crossed, problem.block, threads))
            shares.append(problem.weight / problem.energy if problem.energy > 0 else 0.0)
        presence, gone = presence_of(problems), np.zeros(problems[0].width, bool)
        found = {len(gone): tuple(range(len(gone)))}
        for size in range(len(gone) - 1, min(sizes) - 1, -1):
            costs = sum(share * state.gains() for share, state in zip(shares, states, strict=True))
            worst = pick(np.asarray(costs), level(cells, gone), largest=False, presence=presence)
            gone[worst] = True
            for state in states:
                state.eliminate(worst)
            found[size] = tuple(np.flatnonzero(~gone).tolist())
        return tuple(Choice(found[size], mean_error(problems, found[size])) for size in sizes)


def _scaled(gram: Gram, even: Float64) -> Gram:
    if isinstance(gram, LowRank):
        return gram.scaled(even)
    gram *= even
    gram *= even[:, None]
    return gram


def _inverse(gram: Gram, strength: float) -> Gram:
    """(G + lam I)^-1; lam also covers the rounding of a gram whose columns depend on one another."""
    pull = max(strength * float(np.mean(gram.diagonal())), 1e-300)
    if isinstance(gram, LowRank):
        return gram.damped(pull).inverse()
    while True:
        damped = gram.copy()
        damped[np.diag_indices(len(gram))] += pull
        try:
            factor = cholesky(damped, overwrite=True)
        except np.linalg.LinAlgError:
            pull *= 10
            continue
        inverse = inverted(factor).T
        for start in range(0, len(inverse), CHUNK):  # what is right of the diagonal is done
            stop = start + CHUNK
            inverse[start:stop, :start] = inverse[:start, start:stop].T
            block = inverse[start:stop, start:stop]
            block[...] = np.triu(block) + np.triu(block, 1).T
        return np.asarray(inverse)
