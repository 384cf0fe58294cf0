"""Widths on their way to a budget: what every other width of every group would cost and lose, kept current."""

from collections.abc import Mapping, Sequence

import numpy as np

from onnx_subprune._typing import Float64
from onnx_subprune.allocation.multilinear import Multilinear, Tally
from onnx_subprune.allocation.widths import Curve, Room


class State:
    """The current widths, as places in the choices of their rooms; rooms go by their number. Starts at the full widths.

    errors: for each room, the errors of its choices. places: for each room, the place of its width in its choices.
    """

    def __init__(self, rooms: Sequence[Room], curves: Mapping[str, Curve], cost: Multilinear) -> None:
        self.errors = [curves[room.name].dense(room.width)[list(room.choices)] for room in rooms]
        self.places = [len(room.choices) - 1 for room in rooms]
        self._names = [room.name for room in rooms]
        self._choices = [np.array(room.choices, np.int64) for room in rooms]
        self._cost = cost
        self._widths, self._tally = dict(cost.full), Tally(cost, {})
        self._changes: list[Float64 | None] = [None] * len(rooms)
        numbers = {name: number for number, name in enumerate(self._names)}
        self._near = [sorted(numbers[near] for near in cost.neighbours(name) & set(numbers)) for name in self._names]

    @property
    def widths(self) -> dict[str, int]:
        """The width of every room."""
        return {name: self._widths[name] for name in self._names}

    @property
    def spent(self) -> float:
        """The cost, as from scratch: what rounding does to a sum of changes does not add up."""
        return self._tally.total

    @property
    def lost(self) -> float:
        """The sum of the errors."""
        return sum(float(errors[place]) for errors, place in zip(self.errors, self.places, strict=True))

    def go(self, places: Sequence[int]) -> None:
        """Give all rooms these choices."""
        for number, place in enumerate(places):
            if self.places[number] != place:
                self.move(number, place)

    def near(self, number: int) -> Sequence[int]:
        """Return the rooms whose changes depend on the width of this one, itself among them."""
        return self._near[number]

    def changes(self, number: int) -> Float64:
        """Return how the cost changes if the room gets each of its choices; evaluated only after a move nearby."""
        known = self._changes[number]
        if known is None:
            known = self._cost.changes(self._widths, self._names[number], self._choices[number])
            self._changes[number] = known
        return known

    def changes_after(self, moved: int, place: int, number: int) -> Float64:
        """Return `changes(number)` as they would be if room `moved` were at `place`."""
        widths = {**self._widths, self._names[moved]: int(self._choices[moved][place])}
        return self._cost.changes(widths, self._names[number], self._choices[number])

    def move(self, number: int, place: int) -> None:
        """Give the room another of its choices."""
        self.places[number] = place
        self._widths[self._names[number]] = int(self._choices[number][place])
        self._tally.move(self._names[number], int(self._choices[number][place]))
        for near in self._near[number]:
            self._changes[near] = None
