"""Powers of two by which numbers are multiplied before they are squared in float32, whose squares end at 1e-38."""

import numpy as np

from onnx_subprune._typing import Array

SMALLEST = 2.0**-40
"""Arrays of which nothing is larger have squares, and sums of products with others, that float32 has too few digits for."""


def largest_in(values: Array) -> float:
    """Return the largest absolute value, without a copy; 0 where there are none."""
    return max(float(values.max()), -float(values.min())) if values.size else 0.0


def scale_of(largest: float) -> float:
    """Return the power of two to multiply by where `largest` is the largest absolute value; 1 where there is no need."""
    if not 0.0 < largest < SMALLEST:
        return 1.0
    return float(np.ldexp(1.0, int(1 - np.frexp(largest)[1])))


def scaled(values: Array, scale: float) -> Array:
    """Return `values` times a power of two, which may be too large for their type."""
    return values if scale == 1.0 else np.asarray(np.multiply(values, scale, dtype=np.float64), np.float32)
