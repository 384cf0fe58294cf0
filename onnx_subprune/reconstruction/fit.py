"""From moments to least squares: which columns are alive, the problem of a group, the refit of a contraction.

All convolution groups of a contraction are handled side by side: row r of the weight's input axis, counted over all groups, owns the columns
r * taps ... of a block-diagonal gram.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnx_subprune._typing import Float64, Mask, Weights
from onnx_subprune.calibration.moments.halves import Halves
from onnx_subprune.calibration.moments.moments import Moments
from onnx_subprune.calibration.moments.regression import Equations, Regression
from onnx_subprune.reconstruction.settings import Refitted
from onnx_subprune.runtime.threads import alongside
from onnx_subprune.selection.linalg.many import Many, Systems
from onnx_subprune.selection.linalg.ridge import STRENGTHS, Factors


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fit:
    """New weights of a contraction and how they do.

    weights: (g, p, m), zero where columns are dead. bias: (g, m) or None where it is not free. The errors are relative to the energy
    of the target; plain_error is that of the old weights, sliced; refitted is False where those were kept.
    strengths: of the ridge, one a convolution group. exact: nothing is lost with the old weights, so there is nothing to refit.
    """

    weights: Weights
    bias: Float64 | None
    fitted_error: float
    heldout_error: float
    plain_error: float
    refitted: bool
    strengths: tuple[float, ...] = ()
    exact: bool = False

    @classmethod
    def unchanged(cls, weights: Weights) -> "Fit":
        """Return that these weights, and the old bias, are kept; nothing is known of the errors."""
        return cls(weights=weights, bias=None, fitted_error=0.0, heldout_error=0.0, plain_error=0.0, refitted=False)

    def with_error(self, error: float) -> "Fit":
        """Return the same with this error, measured on all samples."""
        return replace(self, fitted_error=error, heldout_error=error, plain_error=error)

    def summary(self, node: str, rows: int = 0, columns: int = 0, domain: str | None = None) -> Refitted:
        """Return what the report says of it; see `Refitted`."""
        return Refitted(
            node=node,
            fitted_error=self.fitted_error,
            heldout_error=self.heldout_error,
            plain_error=self.plain_error,
            refitted=self.refitted,
            rows=rows,
            columns=columns,
            domain=domain,
        )


class Known:
    """What fits of one contraction share while its inputs and live columns stay the same, and only targets are renewed.

    whole: the regression on all samples, from the first fit on. factors: its factorizations within `limit` bytes.
    threads: 2 or more fit both halves side by side, and solve for many targets so.
    """

    def __init__(self, limit: int = 0, threads: int = 1) -> None:
        self.factors, self.threads = Factors(limit), threads
        self.whole: Regression | None = None
        self._many: Many | None = None

    def many(self, whole: Systems) -> Many:
        """Return the factorizations of the grams of all convolution groups."""
        found = Many.of(whole.gram) if self._many is None else self._many
        self._many = found if found.nbytes <= self.factors.left else None
        return found


def fit(
    halves: Halves,
    prior: Weights,
    alive: Mask,
    *,
    free_bias: bool,
    strengths: Sequence[float] = STRENGTHS,
    known: Known | None = None,
) -> Fit:
    """Refit a contraction on the moments of two halves of the samples, pulled towards `prior` (g, p, m).

    The halves may be of the living columns alone, if there is one convolution group.
    The refit is taken where it beats the plain slice on held-out halves. With `free_bias` the regression is about the means.
    """
    if len(prior) == 1 and not alive.all():
        found = fit(
            halves.map(lambda half: living(half, alive)),
            prior[:, alive],
            np.ones(int(alive.sum()), bool),
            free_bias=free_bias,
            strengths=strengths,
            known=known,
        )
        return _among(found, alive)
    known = known if known is not None else Known()
    use = [*halves.parts, halves.whole]
    if free_bias:
        use = [*alongside(lambda item: item.centered(), ((item,) for item in use), known.threads)]
    known.whole = use[-1]
    groups, p, _ = prior.shape
    masks = alive.reshape(groups, p)
    parts = _fit_together(use, prior, masks, strengths, known)
    for g, mask in enumerate(masks if not parts else ()):
        left = np.flatnonzero(mask)
        factored = [*(None for _ in halves.parts), known.factors.of(g)]
        normals = [item.normal(g, left, factor) for item, factor in zip(use, factored, strict=True)]
        parts.append(_fit_group(normals, _rows(prior[g], mask), strengths, known.threads))
    energy = max(float(known.whole.energy.sum()), 1e-300)
    held, plain = (float(sum(part[i] for part in parts)) / energy for i in (1, 2))
    refitted = held < plain
    weights = np.zeros_like(prior)
    for g, part in enumerate(parts):
        weights[g][masks[g]] = part[0] if refitted else prior[g][masks[g]]
    return Fit(
        weights=weights,
        bias=means(halves.whole, weights) if free_bias else None,
        fitted_error=max(0.0, known.whole.error(weights, known.threads)),
        heldout_error=max(0.0, float(held if refitted else plain)),
        plain_error=max(0.0, float(plain)),
        refitted=refitted,
        strengths=tuple(part[3] for part in parts),
    )


def fit_again(whole: Regression, before: Fit, alive: Mask, known: Known) -> Fit:
    """Refit a contraction that `fit` has fitted, for other targets or inputs; its decision and the strengths of the ridge stay.

    whole: all samples, of the living columns alone if there is one convolution group, as in `fit`. The errors stay those of the fit before.
    """
    if len(before.weights) == 1 and not alive.all():
        narrow = replace(before, weights=before.weights[:, alive])
        found = fit_again(living(whole, alive), narrow, np.ones(int(alive.sum()), bool), known)
        return _among(found, alive)
    free_bias = before.bias is not None
    if known.whole is not None:
        known.whole = known.whole.retargeted(whole)
    else:
        known.whole = whole.centered() if free_bias else whole
    groups, p, _ = before.weights.shape
    weights, masks = before.weights.copy(), alive.reshape(groups, p)
    live = masks.all(axis=1)
    systems = _systems(known.whole, masks) if before.refitted else None
    if systems is not None:
        pulled = known.many(systems).fitted(systems.cross, weights[live], np.array(before.strengths)[live])
        weights[live] = pulled
    for g, mask in enumerate(masks if before.refitted and systems is None else ()):
        if mask.any():
            normal = known.whole.normal(g, np.flatnonzero(mask), known.factors.of(g))
            weights[g][mask] = normal.ridged(_rows(before.weights[g], mask), before.strengths[g], known.threads)
    return replace(before, weights=weights, bias=means(whole, weights) if free_bias else None)


def _among(found: Fit, alive: Mask) -> Fit:
    """Put the columns of `alive` back among the dead ones of the only convolution group."""
    weights = np.zeros((1, len(alive), found.weights.shape[2]), found.weights.dtype)
    weights[:, alive] = found.weights
    return replace(found, weights=weights)


def means(total: Regression, weights: Weights) -> Float64:
    """Return the bias (g, m) with which `weights` meet the mean of the target."""
    return np.asarray((total.sum_target - total.sum_output(weights)) / total.count)


def living(half: Regression, alive: Mask) -> Regression:
    """Return `half` on the columns of `alive` (p,), as it may be already; one convolution group."""
    left = np.flatnonzero(alive)
    return half if half.columns == len(left) else half.on(left)


def spread(half: Regression, alive: Mask) -> Regression:
    """Undo `living`."""
    if alive.all() or half.columns == len(alive):
        return half
    return living(half, alive).spread(np.flatnonzero(alive), len(alive))  # one column is collected where none is alive


def plain(moments: Regression, prior: Weights, alive: Mask) -> Fit:
    """Return the plain slice: old weights, dead columns zeroed, old bias."""
    weights = np.where(alive.reshape(prior.shape[:2])[:, :, None], prior, 0.0)
    error = max(0.0, moments.error(weights))
    return Fit(weights=weights, bias=None, fitted_error=error, heldout_error=error, plain_error=error, refitted=False)


def _rows(weights: Weights, mask: Mask) -> Weights:
    return weights if mask.all() else weights[mask]


def _systems(moments: Regression, masks: Mask) -> Systems | None:
    """The regressions of the living convolution groups, if they are many small ones that are alive or dead as a whole; masks: (g, p)."""
    live = masks.all(axis=1)
    if not isinstance(moments, Moments) or moments.gram.shape[1] != masks.shape[1] or (live != masks.any(axis=1)).any():
        return None
    found = Systems(
        gram=moments.gram[live], cross=moments.cross[live], energies=moments.energy[live], rows=moments.count
    )
    return found if found.small else None


def _fit_together(
    use: Sequence[Regression], prior: Weights, masks: Mask, strengths: Sequence[float], known: Known
) -> list[tuple[Weights, float, float, float]]:
    """What `_fit_group` returns of each convolution group, where all can be solved at once; nothing where they cannot."""
    systems = [one for item in use if (one := _systems(item, masks)) is not None]
    if len(systems) < 3:
        return []
    *halves, whole = systems
    live = np.asarray(masks.all(axis=1))
    found = halves[0].validated(halves[1], prior[live], strengths)
    towards = np.where(found.rescaled[:, None, None], whole.rescaled(prior[live]), prior[live])
    fitted = known.many(whole).fitted(whole.cross, towards, found.strengths)
    lost = use[-1].energy.sum(axis=1)
    numbers = np.stack([lost, lost, np.full(len(lost), strengths[0])], axis=1)
    numbers[live] = np.stack([found.losses, found.prior_losses, found.strengths], axis=1)
    weights = iter(fitted)
    return [
        (next(weights) if alive else prior[g][:0], *row)
        for g, (alive, row) in enumerate(zip(live, numbers.tolist(), strict=True))
    ]


def _fit_group(
    normals: Sequence[Equations], prior: Weights, strengths: Sequence[float], threads: int
) -> tuple[Weights, float, float, float]:
    """Weights, held-out loss and the loss of the prior, both plus the energy of the target, and the strength of the ridge."""
    whole = normals[-1]
    if not len(prior):
        return prior, whole.energy, whole.energy, strengths[0]
    if len(normals) < 3:
        return prior, whole.energy, 0.0, strengths[0]
    found = normals[0].validated(normals[1], prior, strengths, threads)
    energy = normals[0].energy + normals[1].energy
    fitted = whole.ridged(whole.rescaled(prior) if found.rescaled else prior, found.strength, threads)
    return fitted, found.error * energy, found.prior_error * energy, found.strength
