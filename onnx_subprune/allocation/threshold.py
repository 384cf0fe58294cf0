"""One threshold for all groups (Kuzmin et al. 2019, section 3): the allocation of the paper this package follows.

Each group alone is cut to the smallest width at which the metric stays above a common threshold; the threshold is the highest one
whose widths are within the budget. The curves are drops of the metric, not divergences.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_subprune._typing import Float64
from onnx_subprune.allocation.multilinear import Multilinear
from onnx_subprune.allocation.widths import Bound, Curve, Room, filled, smallest


@dataclass(frozen=True, slots=True)
class Threshold:
    """The highest common threshold that the budget allows; what is left then widens groups, the most metric per cost first."""

    def allocate(
        self, rooms: Sequence[Room], curves: Mapping[str, Curve], cost: Multilinear, limit: float
    ) -> Mapping[str, int]:
        """See `Allocator`; the errors of the curves are drops of the metric."""
        smallest(rooms, cost, limit)
        drops = {room.name: straight(curves[room.name], room.width) for room in rooms}
        levels = np.unique(np.concatenate([drops[room.name][list(room.choices)] for room in rooms]))
        low, high = -1, len(levels) - 1  # at the last level every group has its smallest width
        while high - low > 1:
            middle = (low + high) // 2
            if cost(_cut(rooms, drops, float(levels[middle]))) <= limit:
                high = middle
            else:
                low = middle
        return filled(rooms, _cut(rooms, drops, float(levels[high])), drops, Bound(cost, limit))


def _cut(rooms: Sequence[Room], drops: Mapping[str, Float64], allowed: float) -> dict[str, int]:
    """The smallest widths whose drops are at most `allowed`."""
    return {room.name: next(w for w in room.choices if drops[room.name][w] <= allowed) for room in rooms}


def straight(curve: Curve, full: int) -> Float64:
    """Return the drops at widths 0 to `full`, (full + 1,): never rising, straight between the measured widths, 0 at the full one.

    A metric can be better without some channels; such a gain counts as no drop. Below the least measured width the first line goes on.
    """
    pairs = {w: max(e, 0.0) for w, e in zip(curve.widths, curve.errors, strict=True) if w < full}
    widths = np.array([*sorted(pairs), full])
    drops = np.maximum.accumulate(np.array([pairs.get(int(w), 0.0) for w in widths])[::-1])[::-1]
    dense = np.interp(np.arange(full + 1), widths, drops)
    if len(widths) > 1:
        slope = max((drops[0] - drops[1]) / (widths[1] - widths[0]), 1e-9)
        dense[: widths[0]] = drops[0] + slope * (widths[0] - np.arange(widths[0]))
    return np.asarray(dense)
