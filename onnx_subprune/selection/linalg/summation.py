"""Sums whose bits do not depend on the order of the summands: float64 pairs hi + lo, added by TwoSum (Knuth).

The summands are sums of float32 products, so they have few significant bits, and a pair holds 106: the sum in the pair
is exact unless summands differ by more than about 2^60 in size. `total` then rounds once: every order, the same bytes.
"""

import numpy as np
from numpy.typing import NDArray

from onnx_subprune._typing import Float64

Summand = NDArray[np.float64] | NDArray[np.float32]

AT_WORK = 1 << 14
"""Elements that TwoSum works on at a time: they and the three temporaries stay in the cache."""


class CompensatedSum:
    """A running sum of arrays of one shape. `hi`, `lo` are None before the first summand."""

    def __init__(self, hi: Float64 | None = None, lo: Float64 | None = None) -> None:
        self.hi, self.lo = hi, lo

    def add(self, value: Summand) -> None:
        """Add `value`, float32 or float64."""
        if self.hi is None or self.lo is None:
            self.hi = np.array(value, np.float64, order="C")
            self.lo = np.zeros_like(self.hi)
            return
        assert self.hi.shape == value.shape
        two_sum(self.hi.reshape(-1), self.lo.reshape(-1), value.reshape(-1))

    def merge(self, other: "CompensatedSum") -> None:
        """Add everything that was added to `other`."""
        if other.hi is None or other.lo is None:
            return
        if self.hi is None or self.lo is None:
            self.hi, self.lo = other.hi.copy(), other.lo.copy()
        else:
            self.add(other.hi)
            self.add(other.lo)

    def total(self) -> Float64:
        """Return the sum, rounded once."""
        assert self.hi is not None, "nothing was added"
        assert self.lo is not None
        return np.asarray(self.hi + self.lo)


def two_sum(hi: Float64, lo: Float64, value: Summand) -> None:
    """Add `value` to hi + lo in place.

    total = hi + value; back = total - hi; lo += (hi - (total - back)) + (value - back); hi = total, a strip at a time.
    """
    size = min(AT_WORK, len(hi))
    total, back, wide = (np.empty(size) for _ in range(3))
    for start in range(0, len(hi), AT_WORK):
        part = slice(start, start + AT_WORK)
        high, low = hi[part], lo[part]
        if len(high) < size:
            total, back, wide = (temporary[: len(high)] for temporary in (total, back, wide))
        wide[:] = value[part]
        np.add(high, wide, out=total)
        np.subtract(total, high, out=back)
        np.subtract(wide, back, out=wide)
        np.subtract(total, back, out=back)
        np.subtract(high, back, out=back)
        np.add(back, wide, out=back)
        np.add(low, back, out=low)
        high[:] = total
