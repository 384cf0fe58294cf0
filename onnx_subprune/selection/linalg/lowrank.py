"""Symmetric matrices of low rank beside their diagonal, for problems with more columns than samples.

    G = diag(d) + s Z'Z        Z (n, p),  n < p,  d > 0,  s = 1 or -1

A gram of 25,088 columns is 5 GB, the rows of 512 samples that it is made of are 0.1. Everything that selection does with a gram
stays in this form: scaling, restriction, the inverse (s changes its sign, by Woodbury), and elimination of the columns I,

    G - G_:I G_II^-1 G_I:  =  diag(d) + s Z'E Z        E = I - s Z_I G_II^-1 Z_I'

of which E^1/2 Z are the new rows: without d (a ridge), these are Z less its projection on Z_I, by Gram and Schmidt.
"""

from dataclasses import dataclass

import numpy as np
import scipy

from onnx_subprune._typing import Float64, Int64


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """See the module; it is indexed by `numpy.ix_`, multiplied, and asked for its length and diagonal like an array.

    rows: Z (n, p). damping: d (p,). sign: s.
    """

    rows: Float64
    damping: Float64
    sign: int = 1

    def __len__(self) -> int:
        return len(self.damping)

    def __getitem__(self, index: tuple[Int64, ...]) -> Float64:
        left, right = (np.ravel(part) for part in index)
        block = self.sign * (self.rows[:, left].T @ self.rows[:, right])
        block[left[:, None] == right] += np.broadcast_to(self.damping[right], block.shape)[left[:, None] == right]
        return np.asarray(block)

    def __matmul__(self, other: Float64) -> Float64:
        return np.asarray(self.damping[:, None] * other + self.sign * (self.rows.T @ (self.rows @ other)))

    def diagonal(self) -> Float64:
        """Return the diagonal, (p,)."""
        return np.asarray(self.damping + self.sign * np.einsum("np,np->p", self.rows, self.rows))

    def take(self, columns: Int64) -> "LowRank":
        """Return the rows and columns `columns`."""
        return LowRank(self.rows[:, columns], self.damping[columns], self.sign)

    def scaled(self, scale: Float64) -> "LowRank":
        """Return diag(scale) G diag(scale)."""
        return LowRank(self.rows * scale, self.damping * scale**2, self.sign)

    def damped(self, pull: float) -> "LowRank":
        """Return G + pull I."""
        return LowRank(self.rows, self.damping + pull, self.sign)

    def inverse(self) -> "LowRank":
        """Return G^-1, which must be there."""
        light = self.rows / self.damping
        factor = scipy.linalg.cholesky(self._inner(), lower=True, check_finite=False)
        rows = scipy.linalg.solve_triangular(factor, light, lower=True, check_finite=False)
        return LowRank(rows, 1.0 / self.damping, -self.sign)

    def solve(self, cross: Float64) -> Float64:
        """Return G^-1 C, (p, m)."""
        return self.inverse() @ cross

    def without(self, gone: Int64, left: Int64) -> "LowRank":
        """Return what eliminating the columns `gone` makes of the columns `left`."""
        fixed = self.take(gone)
        values, vectors = np.linalg.eigh(fixed._inner())  # E = (I + s Z_I d^-1 Z_I')^-1
        root = (vectors / np.sqrt(values)) @ vectors.T
        return LowRank(root @ self.rows[:, left], self.damping[left], self.sign)

    def _inner(self) -> Float64:
        """I + s Z d^-1 Z', (n, n)."""
        inner = self.sign * (self.rows @ (self.rows / self.damping).T)
        inner[np.diag_indices(len(inner))] += 1.0
        return np.asarray(inner)


Gram = Float64 | LowRank
"""What selection takes as a gram."""


def taken(gram: Gram, columns: Int64) -> Gram:
    """Return the rows and columns `columns` of a gram, as a new one."""
    if isinstance(gram, LowRank):
        return gram.take(columns)
    whole = len(columns) == len(gram) and bool(np.all(columns == np.arange(len(gram))))
    return gram.copy() if whole else gram[np.ix_(columns, columns)]
