"""Local moves: from the widths that single groups suggest to those that do best together.

Errors of groups that are cut together do not add up. Where trying is cheap, one group after another is made wider or narrower, the others
narrower or wider by a common factor, so that the cost stays; what really comes out decides.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnx_subprune._typing import Float64
from onnx_subprune.allocation.widths import Bound, Room, filled

FACTORS = (1.5, 1.25, 1.125)
"""How much wider or narrower a group gets at a time; the next one when nothing helps any more."""
GAIN = 0.03
"""A move has to lower the loss by this share: of many trials on few samples the best looks better than it is."""
HALVINGS = 24
"""Bisections of the common factor."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Terrain:
    """Where moves lead: widths of `rooms` within the bound.

    errors: (width + 1,) for each room, to share out what is left over.
    """

    rooms: Sequence[Room]
    errors: Mapping[str, Float64]
    bound: Bound

    def moves(self, widths: Mapping[str, int], room: Room, factor: float) -> Iterator[dict[str, int]]:
        """Yield the widths with `room` wider and with it narrower by `factor`, where there are such choices within the limit."""
        here = widths[room.name]
        wider = [choice for choice in room.choices if choice > here]
        narrower = [choice for choice in room.choices if choice < here]
        for choices, aim in ((wider, here * factor), (narrower, here / factor)):
            if choices:
                found = self._balanced(widths, room, _nearest(choices, aim))
                if found is not None:
                    yield found

    def _balanced(self, widths: Mapping[str, int], fixed: Room, width: int) -> dict[str, int] | None:
        """Widths with room `fixed` at `width` and the others scaled to the bound, then filled; None if even the smallest are beyond."""

        def scaled(factor: float) -> dict[str, int]:
            near = {room.name: _nearest(room.choices, widths[room.name] * factor) for room in self.rooms}
            return {**near, fixed.name: width}

        low, high = 0.0, 8.0
        if not self.bound.allows(scaled(low)):
            return None
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.bound.allows(scaled(middle)) else (low, middle)
        return filled(self.rooms, scaled(low), self.errors, self.bound)


def local_moves(
    terrain: Terrain,
    starts: Sequence[Mapping[str, int]],
    judge: Callable[[Mapping[str, int]], float],
    trials: int,
) -> dict[str, int]:
    """Return the widths with the least loss of at most `trials` tried ones.

    starts: different widths to begin at: those of them that lose least. judge: the loss at some widths. Rooms that save most are moved first.
    """
    losses = [judge(start) for start in starts]
    least = min(losses)
    best = {room.name: starts[losses.index(least)][room.name] for room in terrain.rooms}
    known = {_key({room.name: start[room.name] for room in terrain.rooms}) for start in starts}
    cost = terrain.bound.cost
    ordered = sorted(terrain.rooms, key=lambda room: cost.change(cost.full, room.name, room.choices[0]))
    for factor in FACTORS:
        moved = True
        while moved:
            moved = False
            for room in ordered:
                for found in terrain.moves(best, room, factor):
                    if _key(found) in known:
                        continue
                    if len(known) >= trials:
                        return best
                    known.add(_key(found))
                    loss = judge(found)
                    if loss < least * (1.0 - GAIN):
                        best, least, moved = found, loss, True
    return best


def _key(widths: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(widths.values())


def _nearest(choices: Sequence[int], aim: float) -> int:
    return min(choices, key=lambda choice: abs(choice - aim))
