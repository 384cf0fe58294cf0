"""Which widths groups may have: multiples that are asked for, or those that a machine likes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from onnx_subprune.allocation import Macs, Multilinear, Room, proportional
from onnx_subprune.errors import OptionError
from onnx_subprune.graph.channels import ChannelGraph
from onnx_subprune.graph.costs.costs import costs
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.targets import TARGETS, Target, multiple_of, this_machine

RoundTo = int | Literal["auto"]
"""A multiple, or "auto" for what the target likes."""
DIVISORS = (1, 2, 4, 8, 16, 32)
"""By how much the multiples of a target are cut where a budget cannot be reached with them."""


@dataclass(frozen=True, slots=True)
class Rounding:
    """Multiples of `multiple` for every group, or, with a `target`, what that likes for each group.

    With a target, wide groups may have the halves of its multiple as well, so that small budgets can be reached.
    """

    multiple: int = 1
    target: Target | None = None

    @property
    def plain(self) -> bool:
        """True if any width will do."""
        return self.block == 1

    @property
    def block(self) -> int:
        """How many channels a convolution computes at once, as far as widths are concerned."""
        return self.multiple if self.target is None else self.target.convolution

    @property
    def name(self) -> str:
        """What the report calls it."""
        return str(self.multiple) if self.target is None else f"auto ({self.target.name})"

    @property
    def upwards(self) -> bool:
        """True if a fraction of a group is rounded up: what a machine likes is no reason to lose more than was asked for."""
        return self.target is not None

    def rooms(
        self, graph: ChannelGraph, *, min_width: int = 1, dispensable: Collection[str] = frozenset()
    ) -> list[Room]:
        """Return the widths that each group may have; at a `min_width` of 0 those that are `dispensable` may have none."""
        return self.again(
            graph,
            [
                Room(
                    group.name,
                    group.width,
                    group.step,
                    max(1, min_width),
                    group.step,
                    not min_width and group.name in dispensable,
                )
                for group in graph.groups
            ],
        )

    def again(self, graph: ChannelGraph, rooms: Sequence[Room]) -> list[Room]:
        """Return `rooms` with the multiples of this rounding in place of their own."""
        bare = [replace(room, step=room.unit, halves=False) for room in rooms]
        if self.target is None:
            return [room.rounded(self.multiple) for room in bare]
        return [
            replace(room.rounded(multiple_of(graph, graph.group(room.name), self.target)), halves=True) for room in bare
        ]

    def divided(self, divisor: int) -> "Rounding":
        """Return the rounding with multiples of a target that are smaller by a factor, a power of two."""
        return self if self.target is None else replace(self, target=self.target.divided(divisor))

    @property
    def finer(self) -> "tuple[Rounding, ...]":
        """All with smaller multiples, the coarsest first; none where the user names a multiple."""
        return () if self.target is None else (*(self.divided(divisor) for divisor in DIVISORS[1:]), PLAIN)

    def shared(self, graph: ChannelGraph, rooms: Sequence[Room], fraction: float) -> tuple["Rounding", dict[str, int]]:
        """Return the widths of `rooms` closest to `fraction`, and the coarsest part of this rounding with which any of them gets narrower.

        rooms: in multiples of this rounding.
        """
        whole = {room.name: room.width for room in rooms}
        widths = proportional(rooms, fraction, upwards=self.upwards)
        for kind in self.finer if widths == whole else ():
            found = proportional(kind.again(graph, rooms), fraction, upwards=self.upwards)
            if found != whole:
                return kind, found
        return self, widths

    @property
    def padded(self) -> "tuple[Rounding, ...]":
        """Those whose convolutions have smaller multiples that kernels of the target pad, the coarsest first."""
        return () if self.target is None else tuple(replace(self, target=finer) for finer in self.target.finer())

    def reaching(
        self,
        graph: ChannelGraph,
        cost: Multilinear,
        limit: float,
        *,
        min_width: int = 1,
        dispensable: Collection[str] = frozenset(),
    ) -> "Rounding":
        """Return this rounding, or, of a target, the coarsest part of its multiples with which a cost of `limit` can be reached."""
        if self.target is None:
            return self
        for divisor in DIVISORS:
            finer = self.divided(divisor)
            rooms = finer.rooms(graph, min_width=min_width, dispensable=dispensable)
            if cost({room.name: room.choices[0] for room in rooms}) <= limit:
                return finer
        return self


PLAIN = Rounding()


def reachable(
    rounding: Rounding,
    budget: object,
    network: Network,
    graph: ChannelGraph,
    min_width: int,
    dispensable: Collection[str],
) -> Rounding:
    """Return `rounding`, or, where a budget of multiply-accumulates cannot be reached with it, the coarsest part of it that will do."""
    if not isinstance(budget, Macs):
        return rounding
    cost = costs(network, graph).macs
    return rounding.reaching(graph, cost, budget.fraction * cost({}), min_width=min_width, dispensable=dispensable)


def rounding_of(round_to: RoundTo, target: str | None, *, size: bool) -> Rounding:
    """Return the rounding that is asked for. size: the budget is about size, so that "auto" does not round unless a target is named.

    Raises OptionError for a multiple below 1, an unknown target, and for a target beside a multiple.
    """
    if target is not None and target not in TARGETS:
        raise OptionError(f"--target {target}: there are {', '.join(TARGETS)}")
    if round_to == "auto":
        if target is None:
            return PLAIN if size else Rounding(target=this_machine())
        return PLAIN if target == "none" else Rounding(target=TARGETS[target])
    if target is not None:
        raise OptionError("--target says what widths are rounded to, and so does --round-to: give one of them")
    if round_to < 1:
        raise OptionError("--round-to is at least 1")
    return Rounding(multiple=round_to)


def least_width(min_width: int | None, *, for_speed: bool) -> int:
    """Return the least width of a group where `min_width` is what the user says; a branch with a single channel takes as long as with some.

    Raises OptionError for a negative one.
    """
    if min_width is not None and min_width < 0:
        raise OptionError("--min-width is at least 0")
    return int(not for_speed) if min_width is None else min_width
