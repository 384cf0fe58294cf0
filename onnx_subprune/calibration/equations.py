"""From moments to least squares: which columns are alive, the problem of a group, the refit of a contraction.

All convolution groups of a contraction are handled side by side: row r of the weight's input axis, counted over all groups, owns the columns
r * taps ... of a block-diagonal gram.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from onnx_subprune.calibration.kernel import Kernel
from onnx_subprune.calibration.moments import Moments
from onnx_subprune.graph.channels import Consumer
from onnx_subprune.selection import Normal, Problem, cross_validated, ridge
from onnx_subprune.selection.ridge import STRENGTHS, Factored, Factors

Float64 = NDArray[np.float64]
IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]


def columns_of(rows: IntArray, taps: int) -> IntArray:
    """Return the columns that these rows of the weight's input axis own, with one more axis flattened into the last."""
    return (rows[..., None] * taps + np.arange(taps)).reshape(*rows.shape[:-1], -1)


def problem_of(consumer: Consumer, kernel: Kernel, moments: Moments, weights: Float64, alive: Mask) -> Problem:
    """Return the problem that one consumer poses for its group.

    weights: (g, p, m), the current ones. alive: (g * p,), False for columns of channels that other groups have dropped.
    """
    groups, p, m = weights.shape
    gram = moments.gram[0] if groups == 1 else scipy.linalg.block_diag(*moments.gram)
    cross, prior = moments.cross.reshape(groups * p, m), weights.reshape(groups * p, m)
    columns = columns_of(consumer.positions, kernel.taps)
    if not alive.all():
        left = np.flatnonzero(alive)
        gram, cross, prior = gram[np.ix_(left, left)], cross[left], prior[left]
        columns = np.searchsorted(left, columns)
    return Problem(gram=gram, cross=cross, energy=float(moments.energy.sum()), columns=columns, prior=prior)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fit:
    """New weights of a contraction and how they do.

    weights: (g, p, m), zero where columns are dead. bias: (g, m) or None where it is not free. The errors are relative to the energy
    of the target; plain_error is that of the old weights, sliced; refitted is False where those were kept.
    """

    weights: Float64
    bias: Float64 | None
    fitted_error: float
    heldout_error: float
    plain_error: float
    refitted: bool


def fit(
    halves: Sequence[Moments],
    prior: Float64,
    alive: Mask,
    *,
    free_bias: bool,
    strengths: Sequence[float] = STRENGTHS,
    factors: Factors | None = None,
) -> Fit:
    """Refit a contraction on the moments of two halves of the samples, pulled towards `prior` (g, p, m).

    factors: where they are kept from fit to fit, as long as inputs and `alive` stay the same.

    The refit is taken where it beats the plain slice on held-out halves. With `free_bias` the regression is about the means.
    """
    total = halves[0] + halves[1] if len(halves) == 2 else halves[0]
    use = [half.centered() if free_bias else half for half in (*halves, total)]
    groups, p, _ = prior.shape
    masks = alive.reshape(groups, p)
    known = factors if factors is not None else Factors(0)
    parts = [
        _fit_group([_normal(m, g, masks[g], known.of(i, g)) for i, m in enumerate(use)], prior[g][masks[g]], strengths)
        for g in range(groups)
    ]
    energy = max(float(use[-1].energy.sum()), 1e-300)
    held, plain = (float(sum(part[i] for part in parts)) / energy for i in (1, 2))
    refitted = held < plain
    weights = np.zeros_like(prior)
    for g, part in enumerate(parts):
        weights[g][masks[g]] = part[0] if refitted else prior[g][masks[g]]
    bias = None
    if free_bias:
        bias = (total.sum_target - np.einsum("gp,gpm->gm", total.sum_input, weights)) / total.count
    return Fit(
        weights=weights,
        bias=bias,
        fitted_error=_error(use[-1], weights),
        heldout_error=float(held if refitted else plain),
        plain_error=float(plain),
        refitted=refitted,
    )


def plain(moments: Moments, prior: Float64, alive: Mask) -> Fit:
    """Return the plain slice: old weights, dead columns zeroed, old bias."""
    weights = np.where(alive.reshape(prior.shape[:2])[:, :, None], prior, 0.0)
    error = _error(moments, weights)
    return Fit(weights=weights, bias=None, fitted_error=error, heldout_error=error, plain_error=error, refitted=False)


def _normal(moments: Moments, group: int, mask: Mask, factored: Factored) -> Normal:
    gram, cross, energy = moments.gram[group], moments.cross[group], float(moments.energy[group].sum())
    if not mask.all():
        left = np.flatnonzero(mask)
        gram, cross = gram[np.ix_(left, left)], cross[left]
    return Normal(gram=gram, cross=cross, energy=energy, factored=factored)


def _fit_group(normals: Sequence[Normal], prior: Float64, strengths: Sequence[float]) -> tuple[Float64, float, float]:
    """Weights, held-out loss and the loss of the prior, both plus the energy of the target."""
    whole = normals[-1]
    if not len(prior):
        return prior, whole.energy, whole.energy
    if len(normals) < 3:
        return prior, whole.energy, 0.0
    found = cross_validated(normals[0], normals[1], prior, strengths)
    energy = normals[0].energy + normals[1].energy
    return (
        ridge(whole.gram, whole.cross, prior, found.strength, whole.factored),
        found.error * energy,
        found.prior_error * energy,
    )


def _error(moments: Moments, weights: Float64) -> float:
    loss = np.sum(weights * (moments.gram @ weights)) - 2 * np.sum(weights * moments.cross)
    return float(max(0.0, 1.0 + loss / max(float(moments.energy.sum()), 1e-300)))
