"""Rows for fitting a statistic of all channels from that of the channels that stay, position by position, in relative terms.

    1 ~ a * part / whole + b / whole        part: the variance of the channels that stay; whole: that of all, plus epsilon

Large positions count as much as small ones: what is divided by the root of it is off by half of its relative error.
"""

import numpy as np

from onnx_subprune._typing import Array, Float64


def relative_rows(part: Array, whole: Array) -> tuple[Float64, Float64]:
    """Return the rows, (samples, positions, 2), and their target, (samples, positions, 1), of two arrays of one shape, samples first."""
    inverse = 1.0 / whole.astype(np.float64).reshape(len(whole), -1, 1)
    rows = np.concatenate([part.astype(np.float64).reshape(inverse.shape) * inverse, inverse], axis=-1)
    return rows, np.ones_like(inverse)
