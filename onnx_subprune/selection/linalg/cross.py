"""C in an elimination, C <- C - U'V: what its rows are worth, with as little traffic of memory as can be.

Updates wait in a panel, as those of the gram do. Only C_I C_I' of every channel is kept current, of all that the gains need:

    (C_I - U_I'V)(C_I - U_I'V)' = C_I C_I' - U_I'T - T'U_I,    T = V C_I' - 1/2 V V' U_I

which reads C once. It is taken afresh when the panel is full, or when the energy of a row has fallen so far that rounding counts.
"""

import numpy as np

from onnx_subprune._typing import Float64, Int64
from onnx_subprune.selection.linalg.panel import Panel

CHUNK = 512
"""Rows of C that are updated at once, so that no second C is needed."""
WAITING = 192
"""Rows of updates that wait."""
FALLEN = 1e-5
"""Energies below this share of what they were when taken afresh have lost too many digits."""


class Cross:
    """State of one problem. `matrix` (w*b, m) is taken over and changed."""

    def __init__(self, matrix: Float64, block: int) -> None:
        self._matrix, self._block = np.ascontiguousarray(matrix), block
        self._refresh()

    def outer(self) -> Float64:
        """Return C_I C_I' of every channel, (w, b, b)."""
        return self._outer

    def eliminate(self, own: slice, root: Float64, update: Float64) -> None:
        """Take the rows `own` out: C -= update' root' C_I."""
        if len(update):  # a dependent column is no direction
            u, directions, block = self._u.rows, self._v.rows, self._block
            v = root.T @ (self._matrix[own] - u[:, own].T @ directions)
            term = v @ self._matrix.T - (v @ directions.T) @ u - (0.5 * v @ v.T) @ update
            sides = [side.reshape(len(side), -1, block).transpose(1, 0, 2) for side in (update, term)]
            change = sides[0].transpose(0, 2, 1) @ sides[1]
            self._outer -= change + change.transpose(0, 2, 1)
            self._u.append(update)
            self._v.append(v)
        self._matrix[own] = 0.0
        self._u.rows[:, own] = 0.0
        self._outer[own.start // self._block] = 0.0
        self._fresh[own] = 0.0
        if len(self._u) >= WAITING or np.any(self._energies() < FALLEN * self._fresh):
            self._subtract()
            self._refresh()

    def shrink(self, rows: Int64) -> None:
        """Keep these rows only."""
        self._subtract()
        self._matrix = self._matrix[rows]
        self._refresh()

    def _energies(self) -> Float64:
        """The energy of every row of C, (w*b,)."""
        return np.diagonal(self._outer, axis1=1, axis2=2).flatten()

    def _subtract(self) -> None:
        """C -= U'V, in place."""
        u, v = self._u.rows, self._v.rows
        if u.size and v.size:
            for start in range(0, len(self._matrix), CHUNK):
                rows = slice(start, start + CHUNK)
                self._matrix[rows] -= u[:, rows].T @ v

    def _refresh(self) -> None:
        blocks = self._matrix.reshape(len(self._matrix) // self._block, self._block, self._matrix.shape[1])
        self._outer = blocks @ blocks.transpose(0, 2, 1)
        self._fresh = self._energies()
        self._u, self._v = (Panel(size) for size in self._matrix.shape)
