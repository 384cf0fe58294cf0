"""The rows themselves instead of their products, for a contraction with more columns than rows.

A Gemm of 25,088 inputs has a gram of 5 GB, but 512 samples of it are 51 MB: keep B (n x p) and T (n x m), and form the gram of
the columns that are looked at. The dual matrix B B' (n x n) has the same nonzero eigenvalues as the gram.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.calibration.contraction import Contraction
from onnx_subprune.calibration.moments import Moments
from onnx_subprune.calibration.unfold import rows, unfold

Array = NDArray[np.generic]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


def keeps_rows(count: int, p: int) -> bool:
    """Return whether `count` float32 rows of `p` columns take less room than their compensated gram (float64 twice)."""
    return count < 4 * p


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowStore:
    """Rows of an ungrouped contraction, in the order of the chunks. input: (n, p) float32. target: (n, m) float32."""

    input: Float32
    target: Float32

    @classmethod
    def gather(cls, contraction: Contraction, chunks: Sequence[tuple[Array, Array]]) -> "RowStore":
        """Unfold chunks of (input, target); ValueError for a grouped convolution, whose grams are small."""
        if contraction.groups != 1:
            raise ValueError(f"{contraction.node}: rows are kept for ungrouped contractions only")
        return cls(
            input=np.concatenate([unfold(contraction, x)[0] for x, _ in chunks]),
            target=np.concatenate([rows(contraction, y)[0] for _, y in chunks]),
        )

    def moments(self, columns: Int64) -> Moments:
        """Return the moments of some columns of the input: (1, k, k), (1, k, m) ...; all products in float64."""
        b, t = self.input[:, columns].astype(np.float64), self.target.astype(np.float64)
        return Moments(
            count=float(len(b)),
            gram=(b.T @ b)[None],
            cross=(b.T @ t)[None],
            energy=(t**2).sum(axis=0)[None],
            sum_input=b.sum(axis=0)[None],
            sum_target=t.sum(axis=0)[None],
        )

    def gram(self, left: Int64, right: Int64) -> Float64:
        """Return the block of the gram for these columns, (len(left), len(right)), products in float64."""
        return np.asarray(self.input[:, left].astype(np.float64).T @ self.input[:, right].astype(np.float64))

    def dual(self) -> Float64:
        """Return B B', (n, n), products in float64 over bounded blocks of columns."""
        total = np.zeros((len(self.input),) * 2)
        for start in range(0, self.input.shape[1], BLOCK):
            part = self.input[:, start : start + BLOCK].astype(np.float64)
            total += part @ part.T
        return total


BLOCK = 4096
"""Columns that are widened to float64 at a time."""
