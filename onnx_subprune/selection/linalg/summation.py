"""Sums whose bits do not depend on the order of the summands: float64 pairs hi + lo, added by TwoSum (Knuth).

The summands are sums of float32 products, so they have few significant bits, and a pair holds 106: the sum in the pair
is exact unless summands differ by more than about 2^60 in size. `total` then rounds once: every order, the same bytes.

Most often hi alone is exact: all summands are multiples of some power of two, and as long as their sum is less than 2^53 of those, it is a
float64. Then a plain addition does what TwoSum would do, in less than half the time. That is looked after strip by strip.
"""

import copy
import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from onnx_subprune._typing import Float64, Mask

Summand = NDArray[np.float64] | NDArray[np.float32]

STRIP = 1 << 12
"""Elements that are exact, or not, together."""
AT_WORK = 1 << 14
"""Elements that TwoSum works on at a time: they and the four temporaries stay in the cache."""
BLOCK = 1 << 18
"""Elements whose exponents are looked at, and which are added, before the next: they stay in the cache too."""

EXACT = 2.0**52
"""Multiples of a power of two up to so many times it are float64 numbers; half of what there are, for the bound is rounded itself."""


class CompensatedSum:
    """A running sum of arrays of one shape. `hi`, `lo` are None before the first summand."""

    def __init__(self, hi: Float64 | None = None, lo: Float64 | None = None) -> None:
        self.hi, self.lo = hi, lo
        self._grains: _Grains | None = None

    def add(self, value: Summand) -> None:
        """Add `value`, float32 or float64."""
        flat = value.reshape(-1)
        if self.hi is None or self.lo is None:
            self.hi = np.array(value, np.float64, order="C")
            self.lo = np.zeros_like(self.hi)
            if flat.dtype == np.float32:
                self._grains = _Grains(flat.size)
                for start in range(0, flat.size, BLOCK):
                    self._grains.joined(start, flat[start : start + BLOCK])
            return
        assert self.hi.shape == value.shape
        hi, lo = self.hi.reshape(-1), self.lo.reshape(-1)
        if flat.dtype != np.float32:
            self._grains = None  # as many bits as a float64 has
        if self._grains is None:
            two_sum(hi, lo, flat)
            return
        for start in range(0, flat.size, BLOCK):
            block = slice(start, start + BLOCK)
            _added(hi[block], lo[block], flat[block], self._grains.joined(start, flat[block]))

    def merge(self, other: "CompensatedSum") -> None:
        """Add everything that was added to `other`."""
        if other.hi is None or other.lo is None:
            return
        if self.hi is None or self.lo is None:
            self.hi, self.lo, self._grains = other.hi.copy(), other.lo.copy(), copy.deepcopy(other._grains)
        elif self._grains is None or other._grains is None:
            self.add(other.hi)
            self.add(other.lo)
        else:
            hi, lo, above, below = (array.reshape(-1) for array in (self.hi, self.lo, other.hi, other.lo))
            apart = ~other._grains.exact
            _added(hi, lo, above, self._grains.merged(other._grains))
            for part, inexact in _runs(apart):
                if inexact:
                    two_sum(hi[part], lo[part], below[part])

    def total(self) -> Float64:
        """Return the sum, rounded once."""
        assert self.hi is not None, "nothing was added"
        assert self.lo is not None
        return np.asarray(self.hi + self.lo)


class _Grains:
    """Of every strip the largest power of two, at most, that all summands are multiples of, and a bound on their sum."""

    def __init__(self, size: int) -> None:
        strips = -(-size // STRIP)
        self._grain, self._bound = np.full(strips, np.inf), np.zeros(strips)

    def joined(self, start: int, values: Summand) -> Mask:
        """Count in the elements, float32, from number `start` on, whole strips; return which of these still have exact sums in float64."""
        bits = values.view(np.uint32) & np.uint32(0x7FFFFFFF)
        rest = len(bits) % STRIP
        parts = [bits[: len(bits) - rest].reshape(-1, STRIP), bits[len(bits) - rest :].reshape(-1, rest or 1)]
        largest = np.concatenate([part.max(axis=1) for part in parts])
        for part in parts:
            np.subtract(part, np.uint32(1), out=part)  # zeros wrap around to the largest number there is
        smallest = np.concatenate([part.min(axis=1) for part in parts]) + np.uint32(1)
        exponents = np.maximum(smallest >> np.uint32(23), 1).astype(np.int64) - 150
        here = slice(start // STRIP, start // STRIP + len(largest))
        grain = np.where(smallest > 0, np.ldexp(1.0, exponents), np.inf)
        self._grain[here] = np.minimum(self._grain[here], grain)
        self._bound[here] += largest.view(np.float32)
        return self.exact[here]

    @property
    def exact(self) -> Mask:
        """Which strips have exact sums in float64; never those with infinities and what is not a number."""
        return np.asarray(self._bound < self._grain * EXACT)

    def merged(self, other: "_Grains") -> Mask:
        """Count in all that `other` counted; return which strips still have exact sums in float64."""
        self._grain = np.minimum(self._grain, other._grain)
        self._bound = self._bound + other._bound
        return self.exact


def _added(hi: Float64, lo: Float64, value: Summand, exact: Mask) -> None:
    """Add `value` to hi + lo in place, strips that are `exact` to hi alone."""
    for part, plain in _runs(exact):
        if plain:
            np.add(hi[part], value[part], out=hi[part])
        else:
            two_sum(hi[part], lo[part], value[part])


def _runs(exact: Mask) -> Iterator[tuple[slice, bool]]:
    """Yield the elements of strips that follow each other and are exact, or not, alike."""
    if not len(exact):
        return
    edges = [0, *(np.flatnonzero(np.diff(exact)) + 1).tolist(), len(exact)]
    for first, last in itertools.pairwise(edges):
        yield slice(first * STRIP, last * STRIP), bool(exact[first])


def two_sum(hi: Float64, lo: Float64, value: Summand) -> None:
    """Add `value` to hi + lo in place.

    total = hi + value; back = total - hi; lo += (hi - (total - back)) + (value - back); hi = total, a strip at a time.
    """
    size = min(AT_WORK, len(hi))
    total, back, rest, wide = (np.empty(size) for _ in range(4))
    for start in range(0, len(hi), AT_WORK):
        part = slice(start, start + AT_WORK)
        high, low = hi[part], lo[part]
        if len(high) < size:
            total, back, rest, wide = (temporary[: len(high)] for temporary in (total, back, rest, wide))
        wide[:] = value[part]
        np.add(high, wide, out=total)
        np.subtract(total, high, out=back)
        np.subtract(wide, back, out=wide)
        np.subtract(total, back, out=rest)
        np.subtract(high, rest, out=rest)
        np.add(rest, wide, out=rest)
        np.add(low, rest, out=low)
        high[:] = total
