"""Local moves: from the widths that single groups suggest to those that do best together.

Errors of groups that are cut together do not add up. Where trying is cheap, one group after another is made wider or narrower, the others
narrower or wider by a common factor, so that the cost stays; what really comes out decides.
"""

from collections.abc import Callable, Mapping, Sequence

from onnx_subprune.allocation.allocator import Array, Room, filled
from onnx_subprune.allocation.cost import Multilinear

FACTORS = (1.5, 1.25, 1.125)
"""How much wider or narrower a group gets at a time; the next one when nothing helps any more."""
GAIN = 0.03
"""A move has to lower the loss by this share: of many trials on few samples the best looks better than it is."""
HALVINGS = 24
"""Bisections of the common factor."""


def local_moves(
    rooms: Sequence[Room],
    errors: Mapping[str, Array],
    cost: Multilinear,
    limit: float,
    start: Mapping[str, int],
    judge: Callable[[Mapping[str, int]], float],
    trials: int,
) -> dict[str, int]:
    """Return the widths with the least loss of at most `trials` tried ones, which cost at most `limit`.

    errors: (width + 1,) for each room, to share out what is left over. judge: the loss at some widths. Rooms that save most are moved first.
    """
    best = {room.name: start[room.name] for room in rooms}
    losses = {_key(best): judge(best)}
    least = losses[_key(best)]
    saves = {room.name: cost.change(cost.full, room.name, room.choices[0]) for room in rooms}
    ordered = sorted(rooms, key=lambda room: saves[room.name])
    for factor in FACTORS:
        moved = True
        while moved:
            moved = False
            for room in ordered:
                for width in _moved(room, best[room.name], factor):
                    found = _balanced(rooms, errors, cost, limit, best, room, width)
                    if found is None or _key(found) in losses:
                        continue
                    if len(losses) >= trials:
                        return best
                    loss = losses[_key(found)] = judge(found)
                    if loss < least * (1.0 - GAIN):
                        best, least, moved = found, loss, True
    return best


def _key(widths: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(widths.values())


def _moved(room: Room, width: int, factor: float) -> list[int]:
    """The choices closest to the width times and over `factor`, but not the width itself."""
    wider = [choice for choice in room.choices if choice > width]
    narrower = [choice for choice in room.choices if choice < width]
    return [
        *([min(wider, key=lambda choice: abs(choice - width * factor))] if wider else []),
        *([min(narrower, key=lambda choice: abs(choice - width / factor))] if narrower else []),
    ]


def _balanced(
    rooms: Sequence[Room],
    errors: Mapping[str, Array],
    cost: Multilinear,
    limit: float,
    widths: Mapping[str, int],
    fixed: Room,
    width: int,
) -> dict[str, int] | None:
    """Widths with room `fixed` at `width` and the others scaled to `limit`, then filled; None if even the smallest cost more."""

    def scaled(factor: float) -> dict[str, int]:
        near = {
            room.name: min(room.choices, key=lambda choice: abs(choice - widths[room.name] * factor)) for room in rooms
        }
        return {**near, fixed.name: width}

    low, high = 0.0, 8.0
    if cost(scaled(low)) > limit:
        return None
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(scaled(middle)) <= limit else (low, middle)
    return filled(rooms, scaled(low), errors, cost, limit)
