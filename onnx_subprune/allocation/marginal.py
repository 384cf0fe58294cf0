"""Allocation by marginal cost: give up the least error per cost saved, until the budget is met.

    minimise sum over groups of D_l(k_l)   subject to   cost(k) <= limit

D_l is what the model's output loses when group l alone has width k_l. What a width costs depends on the widths of the neighbours,
so costs are evaluated anew at every step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx_subprune.allocation.allocator import Array, Curve, Room, filled, smallest
from onnx_subprune.allocation.cost import Multilinear

STRIDES = (1, 2, 4, 8, 16, 32)
"""How many steps a group may be narrowed at once: looking further than one gets over bumps of the error curve."""


@dataclass(frozen=True, slots=True)
class MarginalCost:
    """Narrow greedily from the full widths, then widen while anything fits."""

    def allocate(
        self, rooms: Sequence[Room], curves: Mapping[str, Curve], cost: Multilinear, limit: float
    ) -> Mapping[str, int]:
        """See `Allocator`."""
        smallest(rooms, cost, limit)
        errors = {room.name: curves[room.name].dense(room.width) for room in rooms}
        current = dict(cost.full)
        spent = cost(current)
        while spent > limit:
            name, width, saved = _best(rooms, errors, cost, current)
            current[name] = width
            spent -= saved
        return filled(rooms, {room.name: current[room.name] for room in rooms}, errors, cost, limit)


def _best(
    rooms: Sequence[Room], errors: Mapping[str, Array], cost: Multilinear, current: Mapping[str, int]
) -> tuple[str, int, float]:
    """The narrowing with the least error per cost saved: group, new width, cost saved."""
    best: tuple[float, str, int, float] | None = None
    for room in rooms:
        at = room.choices.index(current[room.name])
        slope: float | None = None
        for stride in STRIDES:
            if at - stride < 0:
                break
            width = room.choices[at - stride]
            if slope is None:  # the cost is linear in the width of one group
                slope = -cost.change(current, room.name, width) / (current[room.name] - width)
            saved = slope * (current[room.name] - width)
            if saved <= 0.0:
                break
            rate = (errors[room.name][width] - errors[room.name][current[room.name]]) / saved
            if best is None or rate < best[0]:
                best = (rate, room.name, width, saved)
    assert best is not None, "the smallest widths were checked before"
    return best[1], best[2], best[3]
