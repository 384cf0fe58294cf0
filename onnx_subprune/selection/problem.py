"""The problem a selector solves: which channels of a consumer's input to keep, on its moments.

With B (n x p) the unfolded input of a consumer and T (n x m) its target, everything the selection needs is

    gram  G = B'B  (p x p)        cross  C = B'T  (p x m)        energy  e = ||T||^2

F(S) = tr(C_S' G_S^+ C_S) is the energy that the channels in S explain with their best weights, and the error is e - F(S)
(El Halabi, Srinivas, Lacoste-Julien, NeurIPS 2022, section 3). A channel owns `block` columns; columns that no channel
owns are *fixed*: they belong to channels outside the group and stay, so they are projected out once, by a Schur complement.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_subprune._typing import Float64, Int64, Weights
from onnx_subprune.selection.linalg.lowrank import Gram, LowRank, taken
from onnx_subprune.selection.linalg.ridge import DEPENDENT, pseudo_solve
from onnx_subprune.selection.linalg.rounding import mask_cross, zero_columns

Support = tuple[int, ...]
"""Kept channels: sorted, unique."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """One consumer's least-squares problem over the channels of one group.

    gram: (p, p) float64, symmetric positive semi-definite; a `LowRank` where there are fewer samples than columns.
    cross: (p, m) float64; any matrix with the same C C' and C C' alone counts for the selection.
    energy: squared norm of the target, on the same scale as `gram`.
    columns: (w, b) int64, the columns of `gram` that each of the w channels owns; the rest are fixed.
    prior: (p, m) float64, float64 or float32, the current weights of the consumer (what no refit would use).
    weight: importance of this consumer beside the others of its group.
    presence: (w,) float64, the energy that each channel brings to the target as it is, on the scale of `energy`: zero for those that are dead, and
    for no others. It decides between channels whose gains are the same up to rounding. None: not known, for all alike.
    """

    gram: Gram
    cross: Float64
    energy: float
    columns: Int64
    prior: Weights
    weight: float = 1.0
    presence: Float64 | None = None

    @property
    def width(self) -> int:
        """Number of channels to choose from."""
        return int(self.columns.shape[0])

    @property
    def block(self) -> int:
        """Number of columns a channel owns."""
        return int(self.columns.shape[1])

    @property
    def fixed(self) -> Int64:
        """Columns that no channel owns, (f,) int64."""
        return np.setdiff1d(np.arange(len(self.gram)), self.columns.ravel())

    def kept(self, support: Iterable[int]) -> Int64:
        """Return all columns that stay when the channels in `support` do, sorted."""
        own = self.columns[np.asarray(sorted(support), np.int64)].ravel()
        return np.sort(np.concatenate([own, self.fixed]))

    def reduced(self) -> tuple[Gram, Float64, float]:
        """Return gram (w*b, w*b), cross (w*b, m) and energy of what the fixed columns leave unexplained.

        Channel i owns columns i*b to (i+1)*b - 1. Both are new.
        """
        return self._without(self.fixed, self.columns.ravel())

    def beside(self, support: Sequence[int]) -> tuple[Gram, Float64, float]:
        """Return the same of what the channels in `support` leave unexplained too, for the channels that are not in it."""
        others = np.delete(self.columns, np.asarray(support, np.int64), axis=0)
        return self._without(self.kept(support), others.ravel())

    def _without(self, fixed: Int64, own: Int64) -> tuple[Gram, Float64, float]:
        """Gram, cross and energy of the columns `own` in what `fixed` leave unexplained."""
        gram, cross = self.gram, self.cross[own]
        if not fixed.size:
            return taken(gram, own), cross, self.energy
        if isinstance(gram, LowRank):
            solved = gram.take(fixed).solve(self.cross[fixed])
            cross = cross - gram.sign * (gram.rows[:, own].T @ (gram.rows[:, fixed] @ solved))
            return gram.without(fixed, own), cross, self.energy - float(np.sum(self.cross[fixed] * solved))
        between = gram[np.ix_(fixed, own)]
        solved = pseudo_solve(gram[np.ix_(fixed, fixed)], np.hstack([between, self.cross[fixed]]))
        explained = float(np.sum(self.cross[fixed] * solved[:, len(own) :]))
        whole = gram[np.ix_(own, own)]
        left = whole - between.T @ solved[:, : len(own)]
        zero_columns(left[None], left.diagonal()[None] <= DEPENDENT * whole.diagonal()[None])
        crossed = cross - between.T @ solved[:, len(own) :]
        return left, mask_cross(left[None], crossed[None])[0], self.energy - explained

    def error(self, support: Sequence[int]) -> float:
        """Return the relative squared error of the best weights on `support`."""
        kept = self.kept(support)
        gram, cross = taken(self.gram, kept), self.cross[kept]
        solved = gram.solve(cross) if isinstance(gram, LowRank) else pseudo_solve(gram, cross)
        explained = np.sum(cross * solved)
        return float(max(0.0, 1.0 - explained / self.energy)) if self.energy > 0 else 0.0

    def plain_error(self, support: Sequence[int]) -> float:
        """Return the relative squared error of the prior weights, dropped rows zeroed and nothing refitted."""
        kept = self.kept(support)
        prior = self.prior[kept].astype(np.float64, copy=False)
        loss = np.sum(prior * (taken(self.gram, kept) @ prior)) - 2 * np.sum(prior * self.cross[kept])
        return float(max(0.0, 1.0 + loss / self.energy)) if self.energy > 0 else 0.0
