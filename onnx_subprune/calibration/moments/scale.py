"""Powers of two by which numbers are multiplied before they are squared in float32, whose squares end at 1e-38 and at 1e38."""

import numpy as np

SQUARED = 2.0**-40, 2.0**40
"""Numbers between these, their squares, and the sums of these have room in float32; others are scaled."""


def scale_of(largest: float) -> float:
    """Return the power of two to multiply by where `largest` is the largest absolute value; 1 where there is no need."""
    if not np.isfinite(largest) or largest == 0.0 or SQUARED[0] <= largest <= SQUARED[1]:
        return 1.0
    return float(np.ldexp(1.0, int(1 - np.frexp(largest)[1])))
