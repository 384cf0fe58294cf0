"""What elimination leaves of a gram, row by row on demand: an array, whose updates wait in a panel, or a `LowRank`."""

from concurrent.futures import Executor, Future
from typing import Protocol

import numpy as np

from onnx_subprune._typing import Float64, Int64
from onnx_subprune.selection.linalg.lowrank import Gram, LowRank
from onnx_subprune.selection.linalg.panel import Panel

CHUNK = 512
"""Rows of G that are updated at once, so that no second G is needed."""


class Residual(Protocol):
    """G as far as it has been eliminated."""

    @property
    def waiting(self) -> int:
        """How many eliminated columns still take room."""

    def row(self, own: slice) -> Float64:
        """Return the rows of the columns `own`, (b, p); their own block may be stale."""

    def eliminate(self, own: slice, root: Float64, update: Float64) -> None:
        """Take the columns `own` out: G -= update'update, where update = root' row and root root' inverts their block."""

    def shrink(self, columns: Int64) -> None:
        """Keep these columns only."""


def residual(gram: Gram, scale: Float64, helper: Executor | None = None) -> Residual:
    """Return the residual of diag(scale) G diag(scale), to begin with; an array is taken over and changed. helper: shares in the work."""
    if isinstance(gram, LowRank):
        return _Rows(gram.scaled(scale))
    gram *= scale
    gram *= scale[:, None]
    return _Panelled(gram, helper)


def diagonal_blocks(gram: Gram, scale: Float64, block: int) -> Float64:
    """Return the blocks on the diagonal of diag(scale) G diag(scale), (w, b, b)."""
    width = len(gram) // block
    if not isinstance(gram, LowRank):
        blocks = np.diagonal(gram.reshape(width, block, width, block), axis1=0, axis2=2).transpose(2, 0, 1)
        parts = scale.reshape(width, block)
        return np.ascontiguousarray(blocks * parts[:, None, :] * parts[:, :, None])
    rows = (gram.rows * scale).T.reshape(width, block, -1)
    blocks = gram.sign * (rows @ rows.transpose(0, 2, 1))
    blocks[:, np.arange(block), np.arange(block)] += (gram.damping * scale**2).reshape(width, block)
    return np.asarray(blocks)


class _Panelled:
    """Updates wait in a panel until there are enough for one large product; only what is right of the diagonal is kept current."""

    def __init__(self, gram: Float64, helper: Executor | None) -> None:
        self._gram, self._helper = gram, helper
        self._panel = Panel(len(gram))

    @property
    def waiting(self) -> int:
        return len(self._panel)

    def row(self, own: slice) -> Float64:
        row = np.hstack([self._gram[: own.start, own].T, self._gram[own, own.start :]])
        u = self._panel.rows
        row -= u[:, own].T @ u
        return row

    def eliminate(self, own: slice, root: Float64, update: Float64) -> None:
        self._panel.append(update)

    def shrink(self, columns: Int64) -> None:
        panel = self._panel.rows[:, columns]
        left = len(columns)

        def update(start: int, part: Float64) -> None:
            part -= panel[:, start : start + len(part)].T @ panel[:, start:]
            self._gram[start : start + len(part), start:left] = part

        waiting: Future[None] | None = None
        for start in range(0, left, CHUNK):  # rows move up only, so none is written before it was read
            part = self._gram[np.ix_(columns[start : start + CHUNK], columns[start:])]
            if self._helper is None:
                update(start, part)
            elif waiting is None:
                waiting = self._helper.submit(update, start, part)
            else:
                update(start, part)
                waiting.result()
                waiting = None
        if waiting is not None:
            waiting.result()
        self._gram = self._gram[:left, :left]
        self._panel = Panel(left)


class _Rows:
    """The rows of a `LowRank` are changed at once."""

    def __init__(self, gram: LowRank) -> None:
        self._rows, self._sign = gram.rows, gram.sign
        self._waiting = 0

    @property
    def waiting(self) -> int:
        return self._waiting

    def row(self, own: slice) -> Float64:
        return np.asarray(self._sign * (self._rows[:, own].T @ self._rows))

    def eliminate(self, own: slice, root: Float64, update: Float64) -> None:
        basis, triangle = np.linalg.qr(self._rows[:, own] @ root)  # E = I - s Q R R' Q'
        vectors, values, _ = np.linalg.svd(triangle)
        basis = basis @ vectors
        less = 1.0 - np.sqrt(np.maximum(1.0 - self._sign * values**2, 0.0))
        self._rows -= (basis * less) @ (basis.T @ self._rows)
        self._waiting += len(update)

    def shrink(self, columns: Int64) -> None:
        self._rows = np.ascontiguousarray(self._rows[:, columns])
        self._waiting = 0
