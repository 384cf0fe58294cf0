"""Coordinates and which of them coincide.

A coordinate is (axis, position), an integer id. `tie` says that two arrays of coordinates coincide elementwise, `pin` that coordinates
must stay. Nothing is decided before `resolve`, which finds all classes of coinciding coordinates at once (connected
components of the graph of ties).
"""

from dataclasses import dataclass

import numpy as np

from onnx_subprune._typing import Int64
from onnx_subprune.graph.channels import Axis


@dataclass(frozen=True, slots=True, eq=False)
class Classes:
    """The outcome of `Labels.resolve`.

    label: (coordinates,) int64, the class of each coordinate.
    reasons: for each class the reason why it is pinned, or None.
    """

    label: Int64
    reasons: tuple[str | None, ...]

    def free(self, ids: Int64) -> bool:
        """True if no coordinate of `ids` is pinned."""
        return all(self.reasons[label] is None for label in np.unique(self.label[ids]))


class Labels:
    """Collects axes, ties and pins; `resolve` makes classes of them."""

    def __init__(self) -> None:
        self._starts: dict[Axis, tuple[int, int]] = {}
        self._count = 0
        self._ties: list[tuple[Int64, Int64]] = []
        self._pins: list[tuple[Int64, str]] = []

    @property
    def axes(self) -> list[tuple[Axis, int, int]]:
        """All axes seen, with the first coordinate and the size of each."""
        return [(axis, start, size) for axis, (start, size) in self._starts.items()]

    def mark(self) -> tuple[int, int]:
        """Return a mark that `forget` goes back to."""
        return len(self._ties), len(self._pins)

    def forget(self, mark: tuple[int, int]) -> None:
        """Take back all ties and pins since `mark`."""
        del self._ties[mark[0] :], self._pins[mark[1] :]

    def axis(self, axis: Axis, size: int) -> Int64:
        """Return the coordinates of `axis`, (size,) int64; they are made at the first call."""
        if axis not in self._starts:
            self._starts[axis] = (self._count, size)
            self._count += size
        start, known = self._starts[axis]
        assert known == size, f"{axis} has {known} positions, not {size}"
        return np.arange(start, start + size, dtype=np.int64)

    def known(self, axis: Axis) -> Int64 | None:
        """Return the coordinates of `axis` if there are any yet."""
        start, size = self._starts.get(axis, (0, None))
        return None if size is None else np.arange(start, start + size, dtype=np.int64)

    def tie(self, a: Int64, b: Int64) -> None:
        """Coordinates a[i] and b[i] coincide; the arrays broadcast."""
        left, right = np.broadcast_arrays(a, b)
        self._ties.append((left.ravel(), right.ravel()))

    def pin(self, ids: Int64, reason: str) -> None:
        """Coordinates `ids` stay, because of `reason`; the first reason given for a class is the one reported."""
        if ids.size:
            self._pins.append((ids.ravel(), reason))

    def resolve(self) -> Classes:
        """Return the classes of coinciding coordinates."""
        left = np.concatenate([a for a, _ in self._ties]) if self._ties else np.zeros(0, np.int64)
        right = np.concatenate([b for _, b in self._ties]) if self._ties else np.zeros(0, np.int64)
        label = components(self._count, left, right)
        reasons: list[str | None] = [None] * int(label.max(initial=-1) + 1)
        for ids, reason in reversed(self._pins):
            for pinned in np.unique(label[ids]):
                reasons[pinned] = reason
        return Classes(label, tuple(reasons))


def components(count: int, left: Int64, right: Int64) -> Int64:
    """Return the connected component of each of `count` nodes, in the order of their first nodes, where left[i] and right[i] are linked.

    Every node points to one of its component that is not behind it, and each round links what two linked nodes point to: at least half of all
    that is not linked yet goes with every other round.
    """
    first = np.arange(count, dtype=np.int64)
    while left.size:
        low, high = np.minimum(left, right), np.maximum(left, right)
        np.minimum.at(first, high, low)
        while not np.array_equal(further := first[first], first):
            first = further
        left, right = first[left], first[right]
        apart = left != right
        left, right = left[apart], right[apart]
    return (np.cumsum(first == np.arange(count)) - 1)[first]
