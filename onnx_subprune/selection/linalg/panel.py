"""Rows that wait, one below the other in one array, so that a product with all of them is one call: with 2,304 columns, selection takes a third."""

import numpy as np

from onnx_subprune._typing import Float64

FIRST = 32
"""Rows that there is room for at first."""


class Panel:
    """Rows of one width."""

    def __init__(self, width: int) -> None:
        self._room = np.empty((FIRST, width))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> Float64:
        """The rows, (n, width), as a view."""
        return self._room[: self._count]

    def append(self, rows: Float64) -> None:
        """Put more rows, (k, width), below."""
        needed = self._count + len(rows)
        if needed > len(self._room):
            room = np.empty((2 * needed, self._room.shape[1]))
            room[: self._count] = self.rows
            self._room = room
        self._room[self._count : needed] = rows
        self._count = needed
