"""The product of a matrix with its transpose, as strips of rows up to the diagonal: little more than half of it, in work and in memory.

Strip [s, e) holds the columns up to e. The strips lie one after the other in one row of numbers.
"""

from collections.abc import Iterator

import numpy as np

from onnx_subprune._typing import Float32, Float64

STRIP = 512
"""Rows of a strip: enough for the full speed of a product."""


def strips(columns: int) -> Iterator[tuple[int, int, slice]]:
    """Yield start, end and place of every strip."""
    done = 0
    for start in range(0, columns, STRIP):
        end = min(start + STRIP, columns)
        size = (end - start) * end
        yield start, end, slice(done, done + size)
        done += size


def size_of(columns: int) -> int:
    """Return how many numbers the strips are."""
    return max((place.stop for _, _, place in strips(columns)), default=0)


def triangle(b: Float32) -> Float32:
    """Return B B' of every group, (g, p, n), as strips, (g, `size_of(p)`)."""
    groups, columns, _ = b.shape
    if columns <= STRIP:
        return (b @ b.transpose(0, 2, 1)).reshape(groups, -1)
    found = np.empty((groups, size_of(columns)), np.float32)
    for start, end, place in strips(columns):
        for group, whole in zip(b, found, strict=True):
            strip, rows = whole[place].reshape(end - start, end), group[start:end]
            np.matmul(rows, group[:start].T, out=strip[:, :start])
            strip[:, start:] = rows @ rows.T  # which BLAS knows to be symmetric
    return found


def square(parts: Float64, columns: int) -> Float64:
    """Return the whole matrices, (g, p, p), from their strips."""
    whole = np.empty((len(parts), columns, columns))
    for start, end, place in strips(columns):
        strip = parts[:, place].reshape(len(parts), end - start, end)
        whole[:, start:end, :end] = strip
        whole[:, :start, start:end] = strip[:, :, :start].transpose(0, 2, 1)
    return whole
