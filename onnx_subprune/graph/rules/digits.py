"""A flat index is a number in mixed radix, and an axis of a tensor some of its digits: what a Reshape regroups."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod


@dataclass(frozen=True, slots=True)
class Digits:
    """An axis of the input or output: `size` positions, `stride` apart in its segment.

    other: the same two in the second run. varying: True if the size differs from run to run.
    """

    out: bool
    index: int
    size: int
    stride: int
    other: tuple[int, int]
    varying: bool = False

    @property
    def steady(self) -> bool:
        """True if these digits are the same in each run."""
        return not self.varying and self.other == (self.size, self.stride)

    def within(self, other: "Digits") -> bool:
        """True if these digits are among those of `other`, in each run; those may become more from run to run, in front."""
        runs = ((self.size, self.stride), (other.size, other.stride)), (self.other, other.other)
        return self.steady and other.stride == other.other[1] and all(_within(*run) for run in runs)

    def shared(self, other: "Digits") -> "Digits | None":
        """The digits that these share with `other`, of varying size (the heads, where the batch takes them over); None if there are none."""
        end = self.size * self.stride
        if not (self.steady and other.varying and other.stride == other.other[1] and self.stride < other.stride < end):
            return None
        if (
            end % other.stride
            or other.stride % self.stride
            or any(size * other.stride % end for size in (other.size, other.other[0]))
        ):
            return None
        size = end // other.stride
        return Digits(other.out, other.index, size, other.stride, (size, other.stride))


def without_tail(ins: Sequence[Digits], outs: Sequence[Digits]) -> tuple[list[Digits], list[Digits]]:
    """Return the digits of a segment in units of what varies at its end, as the positions behind channels do; those that are no such units are left out.

    (n, C, h, w) to (n, G, C / G * h * w): however many positions there are, G is the front of C.
    """
    tails = [tail for tail in map(_tail, (ins, outs)) if tail != (1, 1)]
    if not tails:
        return [*ins], [*outs]
    first, second = min(tails)
    return tuple(  # type: ignore[return-value]  # of two
        [
            replace(axis, stride=axis.stride // first, other=(axis.other[0], axis.other[1] // second))
            for axis in side
            if axis.stride % first == 0 and axis.other[1] % second == 0
        ]
        for side in (ins, outs)
    )


def _tail(axes: Sequence[Digits]) -> tuple[int, int]:
    """How many positions the axes from the first that varies on have together, in each run; one, where nothing is in front of it."""
    place = next((place for place, axis in enumerate(axes) if axis.varying), 0)
    behind = axes[place:] if place else []
    return prod(axis.size for axis in behind), prod(axis.other[0] for axis in behind)


def _within(inner: tuple[int, int], outer: tuple[int, int]) -> bool:
    (size, stride), (most, start) = inner, outer
    end, last = size * stride, most * start
    return start <= stride and end <= last and stride % start == 0 and last % end == 0


def segments(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Cut both shapes into the shortest runs of axes with equal products; axes of size 1 are left out."""
    left = [axis for axis, size in enumerate(before) if size != 1]
    right = [axis for axis, size in enumerate(after) if size != 1]
    found: list[tuple[list[int], list[int]]] = []
    while left and right:
        ins, outs = [left.pop(0)], [right.pop(0)]
        a, b = before[ins[0]], after[outs[0]]
        while a != b:
            if a < b:
                ins.append(left.pop(0))
                a *= before[ins[-1]]
            else:
                outs.append(right.pop(0))
                b *= after[outs[-1]]
        found.append((ins, outs))
    return found


def digits_of(
    axes: Sequence[int], shape: Sequence[int], other: Sequence[int], varying: Sequence[bool], *, out: bool
) -> list[Digits]:
    """Return the digits of these axes of a tensor, which is of `shape` in one run and of `other` in the second."""
    found, stride, second = list[Digits](), 1, 1
    for axis in reversed(axes):
        found.append(Digits(out, axis, shape[axis], stride, (other[axis], second), varying[axis]))
        stride, second = stride * shape[axis], second * other[axis]
    return found[::-1]
