"""Allocation by marginal cost: give up the least error per cost saved, until the budget is met; then exchange.

    minimise sum over groups of D_l(k_l)^power   subject to   cost(k) <= limit

D_l is what the model's output loses when group l alone has width k_l. What a width costs depends on the widths of the
neighbours, so their costs are evaluated anew at every step. Looking at all lower widths, not only the next one, gets
over the bumps of an error curve.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_subprune._typing import Float64
from onnx_subprune.allocation.descent import State
from onnx_subprune.allocation.exchange import exchange, widen
from onnx_subprune.allocation.multilinear import Multilinear
from onnx_subprune.allocation.widths import Curve, Room, smallest
from onnx_subprune.errors import typed_fields

OVERSHOT = 0.02
"""A last move that leaves less of the cost than is allowed by more than this share may be the wrong one."""


@typed_fields
@dataclass(frozen=True, slots=True)
class MarginalCost:
    """Narrow greedily from the full widths, widen while anything fits, then exchange width between groups.

    power: errors of groups cut together do not simply add. A power below 1 spreads the loss less evenly: what a group that
    is cut deeply anyway loses in addition counts for less.
    """

    power: float = 0.7

    def allocate(
        self, rooms: Sequence[Room], curves: Mapping[str, Curve], cost: Multilinear, limit: float
    ) -> Mapping[str, int]:
        """See `Allocator`."""
        smallest(rooms, cost, limit)
        state = State(rooms, self._tempered(rooms, curves), cost)
        ends = list[tuple[float, Mapping[str, int]]]()
        for places in _narrow(state, limit):
            state.go(places)
            widen(state, limit)
            exchange(state, limit)
            ends.append((state.lost, state.widths))
        return min(ends, key=lambda end: end[0])[1]

    def tempered(self, rooms: Sequence[Room], curves: Mapping[str, Curve]) -> dict[str, Float64]:
        """Return what every width of a room counts for, (width + 1,): its error to the power."""
        tempered = self._tempered(rooms, curves)
        return {room.name: tempered[room.name].dense(room.width) for room in rooms}

    def _tempered(self, rooms: Sequence[Room], curves: Mapping[str, Curve]) -> dict[str, Curve]:
        return {
            name: Curve(curve.widths, tuple(max(error, 0.0) ** self.power for error in curve.errors))
            for name, curve in curves.items()
        }


def _narrow(state: State, limit: float) -> list[list[int]]:
    """Narrow rooms until the cost is within `limit`, the least error per cost saved first; ties to the first room.

    Returns the places of all rooms; where the last move saves much more than is missing, those with the one that loses least in its place, too.
    """
    found, ends = [_narrowing(state, number) for number in range(len(state.places))], list[list[int]]()
    while state.spent > limit:
        number = min(range(len(found)), key=lambda number: found[number][0])
        assert np.isfinite(found[number][0]), "the smallest widths were checked before"
        place = found[number][1]
        if state.spent + state.changes(number)[place] < (1.0 - OVERSHOT) * limit:
            ends = [_mildest(state, limit)]
        state.move(number, place)
        for near in {number, *state.near(number)}:
            found[near] = _narrowing(state, near)
    return [[*state.places], *ends]


def _mildest(state: State, limit: float) -> list[int]:
    """Return the places of all rooms after the move that alone brings the cost within `limit` and loses least."""
    least = np.inf
    places = [*state.places]
    for number, place in enumerate(state.places):
        enough = np.flatnonzero(state.changes(number)[:place] <= limit - state.spent)
        if enough.size:
            lost = state.errors[number][enough] - state.errors[number][place]
            at = int(np.argmin(lost))
            if lost[at] < least:
                least, places = float(lost[at]), [*state.places]
                places[number] = int(enough[at])
    return places


def _narrowing(state: State, number: int) -> tuple[float, int]:
    """Return the least error per cost saved of this room, and the place it then goes to; infinite where none saves."""
    place = state.places[number]
    saved = -state.changes(number)[:place]
    lost = state.errors[number][:place] - state.errors[number][place]
    rates = np.where(saved > 0.0, lost / np.where(saved > 0.0, saved, 1.0), np.inf)[::-1]
    if not len(rates):
        return np.inf, place
    steps = int(np.argmin(rates))
    return float(rates[steps]), place - 1 - steps
