"""Columns of a gram that are nothing but rounding: what is left of a large sum less nearly the same sum.

A channel that is the same everywhere has no energy about its mean, and one that is active at the border alone has none for a tap that
does not reach there. Left as it is, the rounding would be scaled up like the energy of a small channel, and explain anything.
"""

import numpy as np
from numpy.typing import NDArray

from onnx_subprune._typing import Float64

ROUNDING = 1e-6
"""A difference of sums of float32 products below this share of them is rounding."""


def energies(gram: Float64) -> Float64:
    """Return the diagonals, (g, p), of grams (g, p, p)."""
    return np.diagonal(gram, axis1=1, axis2=2)


def zero_columns(gram: Float64, columns: NDArray[np.bool_]) -> None:
    """Set these columns (g, p) of grams (g, p, p), and their rows, to zero, in place."""
    for group in np.flatnonzero(columns.any(axis=1)):
        gram[group, columns[group]] = 0.0
        gram[group][:, columns[group]] = 0.0


def mask_cross(gram: Float64, cross: Float64) -> Float64:
    """Return `cross` (g, p, m), a new array, with zeros for the columns that have no energy in `gram`, if it is known."""
    if gram.shape[1]:
        cross[energies(gram) <= 0.0] = 0.0
    return cross
