"""C in an elimination, C <- C - U'V: what its rows are worth, with as little traffic of memory as can be.

A block of several columns a channel is updated in place. Where a channel is a single column, updates wait in a panel of rows v, as
those of the gram do, and only the energy of every row of C, less u v, is kept current:

    ||c - u v||^2 = ||c||^2 - 2 u c'v + u^2 ||v||^2

which reads C once. Energies are taken afresh when the panel is done, or one of them has fallen so far that rounding counts.
"""

import numpy as np
import scipy.linalg.blas
from numpy.typing import NDArray

from onnx_subprune.selection.panel import Panel

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

WAITING = 32
"""Updates that wait."""
FALLEN = 1e-5
"""Energies below this share of what they were when taken afresh have lost too many digits."""


class Cross:
    """State of one problem. `matrix` (w*b, m) is taken over and changed."""

    def __init__(self, matrix: Array, block: int) -> None:
        self._matrix, self._block = np.ascontiguousarray(matrix), block
        self._energies = _energies(self._matrix) if block == 1 else np.zeros(0)
        self._fresh = self._energies.copy()
        self._clear()

    def energies(self) -> Array:
        """Return the squared norm of every row, (w,); channels of one column."""
        return self._energies

    def outer(self) -> Array:
        """Return C_I C_I' of every channel, (w, b, b)."""
        blocks = self._matrix.reshape(len(self._matrix) // self._block, self._block, -1)
        return np.asarray(blocks @ blocks.transpose(0, 2, 1))

    def eliminate(self, own: slice, root: Array, update: Array) -> None:
        """Take the rows `own` out: C -= update' root' C_I."""
        if self._block > 1:
            self._subtract(update, root.T @ self._matrix[own])
            self._matrix[own] = 0.0
            return
        if not len(update):  # a dependent column is no direction
            self._forget(own)
            return
        u, others, directions = update[0], self._u.rows, self._v.rows
        v = (self._matrix[own.start] - others[:, own.start] @ directions) * root[0, 0]
        shared = self._matrix @ v - (directions @ v) @ others
        self._energies = np.maximum(self._energies - 2.0 * u * shared + u**2 * (v @ v), 0.0)
        self._u.append(u[None])
        self._v.append(v[None])
        self._forget(own)
        if len(self._u) >= WAITING or np.any(self._energies < FALLEN * self._fresh):
            self._settle()

    def shrink(self, rows: IntArray) -> None:
        """Keep these rows only."""
        self._settle()
        self._matrix = self._matrix[rows]
        self._clear()
        if self._block == 1:
            self._energies, self._fresh = self._energies[rows], self._fresh[rows]

    def _forget(self, own: slice) -> None:
        """The row is zero from now on, what waits for it too."""
        self._matrix[own] = 0.0
        self._energies[own] = self._fresh[own] = 0.0
        self._u.rows[:, own] = 0.0

    def _settle(self) -> None:
        if len(self._u):
            self._subtract(self._u.rows, self._v.rows)
            self._energies = _energies(self._matrix)
            self._fresh = self._energies.copy()
            self._clear()

    def _clear(self) -> None:
        self._u, self._v = (Panel(size) for size in self._matrix.shape)

    def _subtract(self, u: Array, v: Array) -> None:
        """C -= U'V, in place."""
        if u.size and v.size:
            scipy.linalg.blas.dgemm(-1.0, v.T, u.T, beta=1.0, c=self._matrix.T, trans_b=True, overwrite_c=True)


def _energies(matrix: Array) -> Array:
    return np.asarray(np.einsum("wm,wm->w", matrix, matrix))
