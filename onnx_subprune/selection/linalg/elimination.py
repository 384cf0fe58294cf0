"""Block Gaussian elimination on (G, C), the kernel of forward and backward selection.

Eliminating channel I (its b columns) with G_II = Q E Q', U = E^-1/2 Q' G_I:, V = E^-1/2 Q' C_I does

    G <- G - U'U        C <- C - U'V

and tr(C_I' G_II^-1 C_I) is what it is worth. On the moments (G, C) that is the gain of adding I (forward selection); on
(H, X) with H = (G + lam I)^-1, X = H C, it is the cost of removing I (optimal brain surgeon by blocks).

Worths do not depend on the scale of a column, so all are scaled to an energy of about 1: a channel may be small without
being superfluous. Updates of G wait in a panel of U until there are enough for one large product; channels that are
done leave the arrays then (`residual`). Only the diagonal blocks of G and of C C', which the gains need, are kept current (`cross`).
"""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from onnx_subprune._typing import Float64
from onnx_subprune.selection.linalg.cross import Cross
from onnx_subprune.selection.linalg.lowrank import Gram
from onnx_subprune.selection.linalg.residual import diagonal_blocks, residual
from onnx_subprune.selection.linalg.ridge import scales

JITTER = 1e-9
"""Added to each diagonal block, columns scaled to an energy of about 1: dependent columns are worth nothing."""
NOTHING = 1e-14
"""Shares of the energy that differ by less are equal: what is left of dependent channels is rounding."""
LARGE = 1 << 19
"""Numbers in C from which on a thread of its own is worth the while."""
PANEL = 384
"""Rows of U that wait before G is updated."""


class Elimination:
    """State of one problem. `gram` (w*b, w*b) and `cross` (w*b, m) are taken over and changed.

    threads: 2 or more bring G and C up to date side by side, where they are large.
    """

    def __init__(self, gram: Gram, cross: Float64, block: int, threads: int = 1) -> None:
        self._block = block
        self._scale = scales(gram)
        self._diagonal = diagonal_blocks(gram, self._scale, block)
        self._helper = ThreadPoolExecutor(1) if threads > 1 and cross.size >= LARGE else None
        self._left = residual(gram, self._scale, self._helper)
        self._cross = Cross(_compressed(cross * self._scale[:, None]), block)
        self._active = np.arange(len(gram) // block)
        self._done = np.zeros(len(self._active), bool)
        self._crossing: Future[None] | None = None

    def gains(self) -> Float64:
        """Return what each channel is worth, (w,); those already eliminated are worth nothing."""
        damped = self._diagonal + JITTER * np.eye(self._block)
        if self._block == 1:
            values = self._crossed().outer()[:, 0, 0] / np.maximum(damped[:, 0, 0], JITTER)
        else:
            inverse = np.linalg.inv(_positive(damped))
            values = np.einsum("wij,wji->w", inverse, self._crossed().outer())
        all_values = np.zeros(len(self._done))
        all_values[self._active] = np.maximum(values, 0.0)
        all_values[self._done] = 0.0
        return all_values

    def energies(self) -> Float64:
        """Return the diagonal of G by channel, (w,), as it was scaled at first; 0 for those already eliminated."""
        left = np.zeros(len(self._done))
        diagonal = np.diagonal(self._diagonal, axis1=1, axis2=2)
        scale = self._scale.reshape(diagonal.shape)
        left[self._active] = np.sum(np.divide(diagonal, scale**2, out=np.zeros_like(scale), where=scale > 0.0), axis=1)
        return np.maximum(left, 0.0)

    def eliminate(self, channel: int) -> None:
        """Take `channel` out."""
        place = int(np.searchsorted(self._active, channel))
        own = slice(place * self._block, (place + 1) * self._block)
        row = self._left.row(own)
        row[:, own] = self._diagonal[place]
        root = _root(self._diagonal[place])
        u = root.T @ row
        cross = self._crossed()
        if self._helper is None:
            cross.eliminate(own, root, u)
        else:
            self._crossing = self._helper.submit(cross.eliminate, own, root, u)
        parts = u.reshape(len(u), len(self._active), self._block).transpose(1, 2, 0)
        self._diagonal -= parts @ parts.transpose(0, 2, 1)
        self._done[channel] = True
        self._diagonal[place] = 0.0
        self._left.eliminate(own, root, u)
        if self._left.waiting >= PANEL:
            self._shrink()

    def _crossed(self) -> Cross:
        """C, up to date."""
        if self._crossing is not None:
            self._crossing.result()
            self._crossing = None
        return self._cross

    def _shrink(self) -> None:
        keep = ~self._done[self._active]
        columns = np.flatnonzero(np.repeat(keep, self._block))
        self._left.shrink(columns)
        self._crossed().shrink(columns)
        self._diagonal = self._diagonal[keep]
        self._active, self._scale = self._active[keep], self._scale[columns]


def _root(block: Float64) -> Float64:
    """Q E^-1/2 of a diagonal block; what depends on eliminated channels is no direction any more."""
    values, vectors = (block[0], np.ones((1, 1))) if len(block) == 1 else np.linalg.eigh(block)
    use = values > JITTER
    return np.asarray(vectors[:, use] / np.sqrt(values[use]))


def _compressed(cross: Float64) -> Float64:
    """A matrix with the same products of rows and at most as many columns as rows: gains see only C C'."""
    rows, targets = cross.shape
    if targets <= rows:
        return cross.copy()
    return np.ascontiguousarray(np.asarray(np.linalg.qr(cross.T, mode="r")).T)


def _positive(blocks: Float64) -> Float64:
    """Blocks with their negative directions (rounding) lifted to almost nothing."""
    try:
        np.linalg.cholesky(blocks)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(blocks)
        return np.asarray((vectors * np.maximum(values, JITTER)[:, None, :]) @ vectors.transpose(0, 2, 1))
    return blocks
