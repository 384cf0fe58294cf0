"""Moments of a contraction: all that selection and refit need to know of the data.

With B (n x p) the unfolded input and T (n x m) the target:

    gram = B'B    cross = B'T    energy = column sums of T^2    sum_input, sum_target = column sums of B, T

`collector` sums them over chunks.
"""

from dataclasses import dataclass, fields, replace

import numpy as np

from onnx_subprune._typing import Float64, Int64, Weights
from onnx_subprune.calibration.moments.regression import presence_in
from onnx_subprune.runtime.threads import alongside
from onnx_subprune.selection.linalg.ridge import Factored, Normal
from onnx_subprune.selection.linalg.rounding import ROUNDING, energies, mask_cross, zero_columns
from onnx_subprune.selection.problem import Problem

TARGETS = 256
"""Targets whose error is judged at a time."""
MANY, SPARSE = 64, 0.9
"""Targets from which on, and shares of the columns up to which, it pays to take the columns out that weights have nothing for."""
STRIP = 512
"""Rows of a gram that are compared at a time."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """Sums over samples, float64; g convolution groups, p columns and m targets each.

    count: number of rows n. gram: (g, p, p), (g, 0, 0) where it was not collected. cross: (g, p, m). energy: (g, m). sum_input: (g, p). sum_target: (g, m).
    about_zero: (g, p), the energies of the columns where the gram has others: about the means, or of some of the rows. None: those of the gram.
    """

    count: float
    gram: Float64
    cross: Float64
    energy: Float64
    sum_input: Float64
    sum_target: Float64
    about_zero: Float64 | None = None

    def __add__(self, other: "Moments") -> "Moments":
        """Return the moments of the union of disjoint data."""
        names = [item.name for item in fields(self) if item.name != "about_zero"]
        known = self.about_zero is not None or other.about_zero is not None
        squares = self.squares + other.squares if known else None
        return Moments(**{name: getattr(self, name) + getattr(other, name) for name in names}, about_zero=squares)

    @property
    def squares(self) -> Float64:
        """Energies of the columns about zero, (g, p): those of channels that are dead are zero, and no others."""
        return energies(self.gram) if self.about_zero is None else self.about_zero

    @property
    def columns(self) -> int:
        """How many columns, p."""
        return int(self.sum_input.shape[1])

    def on(self, columns: Int64) -> "Moments":
        """Return the moments of these columns alone; one convolution group."""
        gram = self.gram[0][np.ix_(columns, columns)][None] if self.gram.shape[1] else self.gram
        squares = None if self.about_zero is None else self.about_zero[:, columns]
        cross, sums = self.cross[:, columns], self.sum_input[:, columns]
        return replace(self, gram=gram, cross=cross, sum_input=sums, about_zero=squares)

    def spread(self, columns: Int64, p: int) -> "Moments":
        """Undo `on`: return the moments among `p` columns, of which all but `columns` are zero."""
        gram, cross, sums = np.zeros((1, p, p)), np.zeros((1, p, self.cross.shape[2])), np.zeros((1, p))
        gram[0][np.ix_(columns, columns)] = self.gram[0]
        cross[:, columns], sums[:, columns] = self.cross, self.sum_input
        squares = None
        if self.about_zero is not None:
            squares = np.zeros((1, p))
            squares[:, columns] = self.about_zero
        return replace(self, gram=gram, cross=cross, sum_input=sums, about_zero=squares)

    def active(self, squares: Float64) -> "Moments":
        """Return the same where columns without energy in these rows have the energies `squares`, (g, p), elsewhere in the data."""
        return replace(self, about_zero=np.where(self.squares > 0.0, self.squares, squares))

    def centered(self) -> "Moments":
        """Return the moments about the column means: the regression with a free bias. Columns that are constant become zero."""
        left, right = self.sum_input[:, :, None], self.sum_target[:, None, :]
        means = left * self.sum_input[:, None, :]
        means /= self.count
        gram = np.subtract(self.gram, means, out=means)
        zero_columns(gram, energies(gram) <= ROUNDING * energies(self.gram))
        return Moments(
            count=self.count,
            gram=gram,
            cross=mask_cross(gram, self.cross - left * right / self.count),
            energy=self.energy - self.sum_target**2 / self.count,
            sum_input=np.zeros_like(self.sum_input),
            sum_target=np.zeros_like(self.sum_target),
            about_zero=self.squares,
        )

    def with_target(self, weights: Weights) -> "Moments":
        """Return the moments whose target is B @ weights, (g, p, m): the layerwise and sequential problems."""
        cross = self.gram @ weights
        return Moments(
            count=self.count,
            gram=self.gram,
            cross=cross,
            energy=np.einsum("gpm,gpm->gm", weights, cross),
            sum_input=self.sum_input,
            sum_target=self.sum_output(weights),
            about_zero=self.about_zero,
        )

    def retargeted(self, renewed: "Moments") -> "Moments":
        """Return these moments about the means with the targets of `renewed`, moments of the same inputs that need no gram."""
        left, right = renewed.sum_input[:, :, None], renewed.sum_target[:, None, :]
        return replace(
            self,
            cross=mask_cross(self.gram, renewed.cross - left * right / self.count),
            energy=renewed.energy - renewed.sum_target**2 / self.count,
        )

    def shifted(self, offset: Float64) -> "Moments":
        """Return the moments of the target plus `offset`, (g, m)."""
        return Moments(
            count=self.count,
            gram=self.gram,
            cross=self.cross + self.sum_input[:, :, None] * offset[:, None, :],
            energy=self.energy + 2 * offset * self.sum_target + self.count * offset**2,
            sum_input=self.sum_input,
            sum_target=self.sum_target + self.count * offset,
            about_zero=self.about_zero,
        )

    def normal(self, group: int, left: Int64, factored: Factored | None = None) -> Normal:
        """Return the normal equations of the columns `left` of a convolution group."""
        gram, cross = self.gram[group], self.cross[group]
        if len(left) < len(gram):
            gram, cross = gram[np.ix_(left, left)], cross[left]
        return Normal(gram=gram, cross=cross, energies=self.energy[group], rows=self.count, factored=factored)

    def sum_output(self, weights: Weights) -> Float64:
        """Return the column sums of the input times weights (g, p, m), (g, m)."""
        return np.asarray(np.einsum("gp,gpm->gm", self.sum_input, weights))

    def error(self, weights: Weights, threads: int = 1) -> float:
        """Return the relative squared error of weights (g, p, m); `threads` may share in the work."""
        gram, crossed = self.gram, self.cross
        if len(weights) == 1 and weights.shape[2] >= MANY:
            used = np.flatnonzero(weights[0].any(axis=1))
            if len(used) <= SPARSE * len(gram[0]):  # of few columns most products are with zeros
                gram, crossed, weights = gram[0][np.ix_(used, used)][None], crossed[:, used], weights[:, used]

        def loss(start: int) -> float:
            some, cross = (array[:, :, start : start + TARGETS] for array in (weights, crossed))
            return float(np.sum(some * (gram @ some - 2 * cross)))

        parts = alongside(loss, ((start,) for start in range(0, weights.shape[2], TARGETS)), threads)
        return float(1.0 + sum(parts) / max(float(self.energy.sum()), 1e-300))

    def overlap(self, other: "Moments") -> tuple[float, float, float]:
        """See `Regression`."""
        shared = first = second = 0.0
        for ours, theirs in zip(self.gram, other.gram, strict=True):
            diagonal = np.diagonal(ours) + np.diagonal(theirs)
            scale = np.divide(1.0, np.sqrt(np.maximum(diagonal, 0.0)), out=np.zeros(len(ours)), where=diagonal > 0.0)
            for start in range(0, len(ours), STRIP):
                strip = np.arange(start, min(start + STRIP, len(ours)))
                one, two = (gram[strip] * scale[strip, None] * scale for gram in (ours, theirs))
                for part in (one, two):
                    part[strip - start, strip] = 0.0
                shared, first, second = (
                    total + float(np.vdot(a, b))
                    for total, a, b in ((shared, one, two), (first, one, one), (second, two, two))
                )
        return shared, first, second

    def problem(self, columns: Int64, weights: Weights, left: Int64, shrinkage: float = 0.0) -> Problem:
        """See `Regression`."""
        groups, p, m = weights.shape
        presence = presence_in(self.squares, weights)[left[columns]].sum(axis=1)
        gram = self.gram[0] if groups == 1 else _block_diagonal(self.gram)
        cross, prior = self.cross.reshape(groups * p, m), weights.reshape(groups * p, m)
        if len(left) < groups * p:
            gram, cross, prior = gram[np.ix_(left, left)], cross[left], prior[left]
        energy = float(self.energy.sum())
        if shrinkage > 0.0:
            own, kept = np.diagonal(gram).copy(), 1.0 - shrinkage
            gram = kept * gram
            np.fill_diagonal(gram, own)
            pulled = own[:, None] * prior
            energy = kept * energy + shrinkage * float(np.sum(pulled * prior))
            cross = kept * cross + shrinkage * pulled
        return Problem(gram=gram, cross=cross, energy=energy, columns=columns, prior=prior, presence=presence)


def _block_diagonal(blocks: Float64) -> Float64:
    """The matrix (g p, g p) of the blocks (g, p, p) on its diagonal."""
    groups, size, _ = blocks.shape
    whole, each = np.zeros((groups, size, groups, size)), np.arange(groups)
    whole[each, :, each] = blocks
    return whole.reshape(groups * size, groups * size)
