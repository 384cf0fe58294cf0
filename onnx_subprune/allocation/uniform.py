"""The same fraction of every group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx_subprune.allocation.multilinear import Multilinear
from onnx_subprune.allocation.widths import Bound, Curve, Room, filled, smallest


def proportional(rooms: Sequence[Room], fraction: float, *, upwards: bool = False) -> dict[str, int]:
    """Return for every group the allowed width closest to `fraction` of it; ties to the smaller. upwards: not below `fraction`."""
    if upwards:
        return {
            room.name: min(width for width in room.choices if width >= fraction * room.width - 1e-9) for room in rooms
        }
    return {
        room.name: min(room.choices, key=lambda width: (abs(width - fraction * room.width), width)) for room in rooms
    }


@dataclass(frozen=True, slots=True)
class Uniform:
    """The largest common fraction that the budget allows; what is left widens the groups that are furthest below it."""

    def allocate(
        self, rooms: Sequence[Room], curves: Mapping[str, Curve], cost: Multilinear, limit: float
    ) -> Mapping[str, int]:
        """See `Allocator`; the curves are not looked at."""
        widths = smallest(rooms, cost, limit)
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            trial = proportional(rooms, middle)
            if cost(trial) <= limit:
                low, widths = middle, trial
            else:
                high = middle
        missing = {room.name: Curve((0,), (1.0,)) for room in rooms}
        errors = {
            room.name: missing[room.name].dense(room.width) * cost.change({**cost.full}, room.name, 0) * -1
            for room in rooms
        }
        return filled(rooms, widths, errors, Bound(cost, limit))
