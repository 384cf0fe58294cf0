"""Ridges of many small regressions at once: a depthwise convolution has one for each of its channels.

The same numbers as `ridge` has, from G = Q E Q' of each: X = Q (E + lam I)^-1 Q' (C + lam W), for all strengths from one factorization. Taken one after
another, most of the time goes to calling LAPACK on nine columns, not to what it computes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from onnx_subprune._typing import Float64, Mask, Weights
from onnx_subprune.selection.linalg.ridge import factors_of
from onnx_subprune.selection.linalg.strengths import downhill, likely

LEAST, WIDEST, TARGETS = 4, 32, 4
"""So many regressions at least, and columns and targets of each at most, are solved together: more of these are better off with blocked factorizations."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Systems:
    """g regressions: gram (g, p, p), cross (g, p, m), energies (g, m) of the targets, and the number of rows, one for all."""

    gram: Float64
    cross: Float64
    energies: Float64
    rows: float

    @property
    def small(self) -> bool:
        """True where there are enough regressions, small ones, to solve them together."""
        groups, columns, targets = self.cross.shape
        return bool(groups >= LEAST and 0 < columns <= WIDEST and targets <= TARGETS)

    def rescaled(self, prior: Weights) -> Weights:
        """Return `prior`, (g, p, m), with the factor for each target with which it fits best."""
        factors = factors_of(np.sum(prior * self.cross, axis=1), np.sum(prior * (self.gram @ prior), axis=1))
        scaled: Weights = prior * factors[:, None].astype(prior.dtype)
        return scaled

    def losses(self, weights: Weights) -> Float64:
        """Return the squared errors of weights (g, p, m) less the energies of the targets, (g,)."""
        return np.asarray(np.sum(weights * (self.gram @ weights - 2.0 * self.cross), axis=(1, 2)))

    def validated(self, other: "Systems", prior: Weights, strengths: Sequence[float]) -> "Validations":
        """Return what `cross_validated` finds for each regression on its own, fitted on one of the two and judged on the other, both ways."""
        losses = _held_out(self, other, prior, strengths) + _held_out(other, self, prior, strengths)
        start, each = likely(strengths, prior.shape[1], self.rows), np.arange(len(prior))
        least = losses.min(axis=2)
        best = np.array([downhill(one.__getitem__, len(strengths), start)[0] for one in least.tolist()])
        energies = (self.energies + other.energies).sum(axis=1)
        silent = energies <= 0.0  # nothing is asked of these
        return Validations(
            strengths=np.where(silent, strengths[-1], np.array(strengths)[best]),
            losses=np.where(silent, 0.0, energies + least[each, best]),
            prior_losses=np.where(silent, 0.0, energies + self.losses(prior) + other.losses(prior)),
            rescaled=~silent & (losses[each, best, 1] < losses[each, best, 0]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Validations:
    """Of each regression, (g,): the best strength, and the held-out squared errors with it and with the prior weights.

    rescaled: where the prior weights are to be rescaled.
    """

    strengths: Float64
    losses: Float64
    prior_losses: Float64
    rescaled: Mask


@dataclass(frozen=True, slots=True, eq=False)
class Many:
    """The grams of g regressions of p columns, factorized. values: (g, p). vectors: (g, p, p), in columns. scale: (g,), the mean of each diagonal."""

    values: Float64
    vectors: Float64
    scale: Float64

    @classmethod
    def of(cls, gram: Float64) -> Self:
        """Return the factorizations of `gram`, (g, p, p)."""
        values, vectors = np.linalg.eigh(gram)
        return cls(np.maximum(values, 0.0), vectors, np.trace(gram, axis1=1, axis2=2) / gram.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes that these take."""
        return self.values.nbytes + self.vectors.nbytes

    def turned(self, array: Float64 | Weights) -> Float64:
        """Return (g, p, m) in the bases of the factorizations."""
        return np.asarray(self.vectors.transpose(0, 2, 1) @ array)

    def fitted(self, cross: Float64, prior: Float64 | Weights, strengths: Float64) -> Float64:
        """Return the weights (g, p, m) that fit best, pulled towards `prior`, each with a strength of its own, (g,)."""
        return np.asarray(self.vectors @ self.ridged(self.turned(cross), self.turned(prior), strengths[:, None])[:, 0])

    def ridged(self, cross: Float64, prior: Float64, strengths: Float64) -> Float64:
        """Return the weights for several strengths (g, s), (g, s, p, m), all in the bases of the factorizations."""
        pull = (strengths * self.scale[:, None])[:, :, None, None]
        left = self.values[:, None, :, None] + pull
        found = (cross[:, None] + pull * prior[:, None]) / np.where(pull > 0.0, left, 1.0)
        return np.asarray(np.where(pull > 0.0, found, prior[:, None]))


def _held_out(half: Systems, other: Systems, prior: Weights, strengths: Sequence[float]) -> Float64:
    """The losses on the other half, (g, s, 2), with strengths and towards the prior weights or those rescaled."""
    made = Many.of(half.gram)
    every = np.broadcast_to(np.array(strengths), (len(prior), len(strengths)))
    cross = made.turned(half.cross)
    towards = (made.turned(prior.astype(np.float64)), made.turned(half.rescaled(prior).astype(np.float64)))
    found = np.stack([made.ridged(cross, item, every) for item in towards], axis=2)  # (g, s, 2, p, m)
    gram, asked = made.turned(other.gram @ made.vectors), made.turned(other.cross)
    flat = found.transpose(0, 3, 1, 2, 4).reshape(
        len(prior), prior.shape[1], -1
    )  # all weights of a regression beside one another
    met = (gram @ flat).reshape(len(prior), -1, *found.shape[1:3], prior.shape[2]).transpose(0, 2, 3, 1, 4)
    return np.asarray(np.sum(found * (met - 2.0 * asked[:, None, None]), axis=(3, 4)))
