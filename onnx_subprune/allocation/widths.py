"""What an allocator is, and what it works on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import numpy as np

from onnx_subprune._typing import Float64
from onnx_subprune.allocation.multilinear import Multilinear, Tally
from onnx_subprune.errors import BudgetError

FINER = (64, 32, 16, 8, 4, 2, 1)
"""Multiples to advise where larger ones are too coarse for a budget."""


@dataclass(frozen=True, slots=True)
class Room:
    """The widths that a group may have: multiples of `step` from `minimum` on, and its full width.

    A group of at most `step` channels has no smaller multiple. It may have the halves of `step`, their halves and so on, as long
    as they are multiples of `unit`, which grouped operators demand: 8, 4, 2 and 1 of 16 channels for a step of 16; with `halves` a wider
    group may have them too. A group that is `dispensable` may have none.
    """

    name: str
    width: int
    step: int = 1
    minimum: int = 1
    unit: int = 1
    dispensable: bool = False
    halves: bool = False

    @property
    def choices(self) -> tuple[int, ...]:
        """All allowed widths, ascending."""
        return _choices(self)

    def at_least(self, width: int) -> "Room":
        """Return the room without the widths below `width`, which is at most the full one."""
        return replace(self, minimum=max(self.minimum, width), dispensable=self.dispensable and width <= 0)

    def rounded(self, multiple: int) -> "Room":
        """Return the room with widths in multiples of this too."""
        return replace(self, step=int(np.lcm(self.step, multiple)))


@lru_cache(maxsize=1 << 12)
def _choices(room: Room) -> tuple[int, ...]:
    """See `Room.choices`: they are asked for at every step of a search."""
    halves = _halves(room) if room.halves or room.width <= room.step else []
    smaller = (*halves, *range(room.step, room.width, room.step))
    none = (0,) if room.dispensable else ()
    return (*none, *(width for width in smaller if width >= room.minimum), room.width)


def _halves(room: Room) -> list[int]:
    halves, half = list[int](), room.step
    while half % 2 == 0 and half // 2 % room.unit == 0:
        half //= 2
        halves.append(half)
    return [half for half in reversed(halves) if half < room.width]


@dataclass(frozen=True, slots=True)
class Curve:
    """What it does to the model's output when one group alone has some width: (widths, errors), any order."""

    widths: tuple[int, ...]
    errors: tuple[float, ...]

    def dense(self, full: int) -> Float64:
        """Return the errors at widths 0 to `full`, (full + 1,): falling, interpolated in the logarithm, 0 at the full width.

        Errors fall by orders of magnitude with the width, so that a straight line between two of them is far too high. From the last one to the
        full width they fall with the square of the channels that are missing: the first to go is the cheapest, and each costs more than the one before.
        Where nothing is lost from some width on, that counts as the full one, and what is narrower loses something.
        """
        known = {w: e for w, e in zip(self.widths, self.errors, strict=True) if w < full}
        if not known:
            return np.zeros(full + 1)
        lossless = max((w for w, e in known.items() if e > 0.0), default=-1)
        free = min((w for w in known if w > lossless), default=full)
        pairs = {w: e for w, e in known.items() if w < free} or {0: 1.0}
        if free == 0:
            return np.zeros(full + 1)
        widths = np.array(sorted(pairs))
        errors = np.maximum.accumulate(np.array([max(pairs[int(w)], 0.0) for w in widths])[::-1])[::-1]
        floor = max(float(errors.max()) * 1e-7, 1e-12)
        logs = np.log(np.maximum(errors, floor))
        curve = np.interp(np.arange(full + 1), widths, logs)
        if widths[0] > 0:
            slope = (logs[0] - logs[1]) / (widths[1] - widths[0]) if len(widths) > 1 else 0.0
            curve[: widths[0]] = logs[0] + max(slope, 0.05) * (widths[0] - np.arange(widths[0]))
        dense = np.exp(curve)
        last = int(widths[-1])
        dense[last:] = dense[last] * (np.maximum(free - np.arange(last, full + 1), 0) / (free - last)) ** 2
        return np.asarray(np.maximum.accumulate(dense[::-1])[::-1])


class Allocator(Protocol):
    """Chooses the width of every group."""

    def allocate(
        self, rooms: Sequence[Room], curves: Mapping[str, Curve], cost: Multilinear, limit: float
    ) -> Mapping[str, int]:
        """Return widths that cost at most `limit`, so that no single group could be one step wider.

        Raises BudgetError, naming the least reachable cost, where not even the smallest widths suffice.
        """


def smallest(rooms: Sequence[Room], cost: Multilinear, limit: float) -> dict[str, int]:
    """Return the smallest widths; BudgetError if even they cost more than `limit`."""
    widths = {room.name: room.choices[0] for room in rooms}
    least = cost(widths)
    if least > limit:
        full = cost({})
        advice = (
            _finer(rooms, cost, limit) or "allow more, or prune more of it (--only, --exclude, --min-width, --round-to)"
        )
        raise BudgetError(
            f"the budget {limit / full:.4g} cannot be reached: the least is {least / full:.4g} of the model; {advice}"
        )
    return widths


def _finer(rooms: Sequence[Room], cost: Multilinear, limit: float) -> str | None:
    """What to try if it is only the rounding that is in the way."""
    for multiple in FINER:
        finer = [replace(room, step=room.unit).rounded(multiple) for room in rooms]
        least = cost({room.name: room.choices[0] for room in finer})
        if multiple < max(room.step for room in rooms) and least <= limit:
            return f"with --round-to {multiple} it is {least / cost({}):.4g}"
    return None


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """What widths may cost: at most `limit`, and by another measure, `beside`, at most `most`, where there is one."""

    cost: Multilinear
    limit: float
    beside: Multilinear | None = None
    most: float = 0.0

    def allows(self, widths: Mapping[str, int]) -> bool:
        """True if the widths are within both limits."""
        return self.cost(widths) <= self.limit and (self.beside is None or self.beside(widths) <= self.most)


def filled(
    rooms: Sequence[Room], widths: Mapping[str, int], errors: Mapping[str, Float64], bound: Bound
) -> dict[str, int]:
    """Widen groups while anything fits within the bound, the best error per cost first; ties to the first group."""
    cost, limit = bound.cost, bound.limit
    current = {**cost.full, **widths}
    price, beside = Tally(cost, current), None if bound.beside is None else Tally(bound.beside, current)
    spent = price.total
    while True:
        best: tuple[float, str, int, float] | None = None
        for room in rooms:
            choices = room.choices
            at = choices.index(current[room.name])
            if at + 1 == len(choices):
                continue
            wider = choices[at + 1]
            whole, extra = price.after(room.name, wider)
            if spent + extra <= limit and (
                beside is None or (whole <= limit and beside.after(room.name, wider)[0] <= bound.most)
            ):
                gain = (errors[room.name][current[room.name]] - errors[room.name][wider]) / max(extra, 1e-12)
                if best is None or gain > best[0]:
                    best = (gain, room.name, wider, extra)
        if best is None:
            return {room.name: current[room.name] for room in rooms}
        current[best[1]] = best[2]
        price.move(best[1], best[2])
        if beside is not None:
            beside.move(best[1], best[2])
        spent += best[3]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupSensitivity:
    """One group alone: the displacement of the output (see `divergence`), and the error of its consumers, at each width.

    lossless: as many channels, rounded up to whole cells, as there are that are not dead; None where that is not known.
    least: the smallest width at which all outputs are finite numbers, the full one if there is no other.
    """

    name: str
    output: Curve
    consumers: Curve
    lossless: int | None = None
    least: int = 0
