"""Fits on one half of the samples that are judged on the other: what a trial of fewer channels is worth on samples that it has not seen."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnx_subprune._typing import Float64, Mask, Weights
from onnx_subprune.calibration.moments.halves import Halves
from onnx_subprune.calibration.moments.regression import Regression
from onnx_subprune.reconstruction.fit import means
from onnx_subprune.selection.linalg.ridge import STRENGTHS
from onnx_subprune.selection.linalg.strengths import likely

GROUPS = 8
"""Of more convolution groups so many are looked at to find the strength of the ridge."""
LOST = 1e-300
"""Where a target has no energy, nothing is lost."""


@dataclass(frozen=True, slots=True)
class Pull:
    """How a fit is pulled: with what strength, towards the old weights or these rescaled."""

    strength: float
    rescaled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crossfit:
    """Weights (g, p, m), zero in dead columns, and bias (g, m), None where it is not free, one of each half that was fitted; of all, where there is one.

    error: relative, each on the half that it was not fitted to. refitted: False where the old weights, sliced, do better there.
    """

    weights: tuple[Weights, ...]
    biases: tuple[Float64 | None, ...]
    error: float
    refitted: bool


def crossfit(both: Halves, prior: Weights, alive: Sequence[Mask], pull: Pull | None, *, free_bias: bool) -> Crossfit:
    """Fit the columns `alive` (g, p), one mask a half, on each half, pulled like that; None: keep the weights `prior`.

    One mask alone is that of the first half, which is fitted and the other one judges.
    """
    use = both.centered if free_bias else both.parts
    judges = [use[(half + 1) % len(use)] for half in range(len(alive))]
    fitted, refitted = [np.where(mask[:, :, None], prior, np.zeros((), prior.dtype)) for mask in alive], False
    losses = [_lost(judge, weights) for judge, weights in zip(judges, fitted, strict=True)]
    if pull is not None:
        tried = [_fitted(half, prior, mask, pull) for half, mask in zip(use, alive, strict=False)]
        found = [_lost(judge, weights) for judge, weights in zip(judges, tried, strict=True)]
        if sum(found) < sum(losses) or len(use) < 2:
            fitted, losses, refitted = tried, found, True
    energy = sum(float(half.energy.sum()) for half in judges)
    return Crossfit(
        weights=tuple(fitted),
        biases=tuple(
            means(half, weights) if free_bias else None for half, weights in zip(both.parts, fitted, strict=False)
        ),
        error=max(0.0, sum(losses)) / max(energy, LOST),
        refitted=refitted,
    )


def pull_of(both: Halves, prior: Weights, alive: Mask, *, free_bias: bool) -> Pull | None:
    """Return the pull that does best on the half that was not fitted to; None where there is nothing to fit."""
    use = both.centered if free_bias else both.parts
    living = [g for g in range(len(prior)) if alive[g].any()]
    if not living:
        return None
    if len(use) < 2:
        return Pull(STRENGTHS[likely(STRENGTHS, int(alive[living[0]].sum()), use[0].count)])
    found = []
    for g in living[:: -(-len(living) // GROUPS)]:
        left = np.flatnonzero(alive[g])
        first, second = (half.normal(g, left) for half in use)
        found.append(first.validated(second, prior[g][left], STRENGTHS))
    rescaled = sum(item.rescaled for item in found) > len(found) / 2
    return Pull(float(np.median([item.strength for item in found])), rescaled)


def _fitted(half: Regression, prior: Weights, alive: Mask, pull: Pull) -> Weights:
    weights = np.zeros_like(prior)
    for g, mask in enumerate(alive):
        left = np.flatnonzero(mask)
        if left.size:
            normal, old = half.normal(g, left), prior[g][left]
            weights[g][left] = normal.ridged(normal.rescaled(old) if pull.rescaled else old, pull.strength)
    return weights


def _lost(judge: Regression, weights: Weights) -> float:
    return judge.error(weights) * float(judge.energy.sum())
