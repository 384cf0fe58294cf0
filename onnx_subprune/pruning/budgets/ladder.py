"""The allocations for every fraction of a cost: what the searches of this package walk on."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from onnx import ModelProto

from onnx_subprune.allocation import Allocator, BlockAware, Curve, Multilinear, Room
from onnx_subprune.allocation.widths import GroupSensitivity
from onnx_subprune.errors import BudgetError
from onnx_subprune.graph.channels import ChannelGraph
from onnx_subprune.graph.rules.vocabulary import Rule
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.pruning.budgets.rounding import Rounding
from onnx_subprune.reconstruction.settings import Reconstruction
from onnx_subprune.reconstruction.task import Task

CLOSE = 0.97
"""A budget is used up from this share of it on."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Allocated:
    """Widths of the groups, the sensitivities they come from, and the walk where the search has done it already.

    instead: from these widths and the share of the original's time that the model at these takes to others that take less; BudgetError if there are none.
    """

    widths: Mapping[str, int]
    sensitivity: Mapping[str, GroupSensitivity] = field(default_factory=dict)
    done: Reconstruction | None = None
    instead: Callable[[Mapping[str, int], float], Mapping[str, int]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ladder:
    """The allocations for every fraction of a cost; the curves are measured.

    lossless: widths at which groups lose nothing, by name; empty where they are not known. Where these alone meet a fraction, no allocator has to choose
    what to lose.
    """

    rooms: Sequence[Room]
    curves: Mapping[str, Curve]
    cost: Multilinear
    allocator: Allocator
    lossless: Mapping[str, int] = field(default_factory=dict)

    @property
    def smallest(self) -> dict[str, int]:
        """The smallest widths."""
        return {room.name: room.choices[0] for room in self.rooms}

    def fraction(self, widths: Mapping[str, int]) -> float:
        """Return the share of the cost that is left at these widths."""
        return self.cost(widths) / self.cost({})

    def widths(self, fraction: float) -> dict[str, int]:
        """Return the widths for this share of the cost; BudgetError where there are none."""
        limit = fraction * self.cost({})
        if self.loses_nothing(fraction):
            for allocator in (
                self.allocator,
                *([self.allocator.inner] if isinstance(self.allocator, BlockAware) else []),
            ):
                with suppress(BudgetError):  # an allocator may keep to more than the cost
                    return dict(allocator.allocate(self._without_loss(), self.curves, self.cost, limit))
        return dict(self.allocator.allocate(self.rooms, self.curves, self.cost, limit))

    def loses_nothing(self, fraction: float) -> bool:
        """True if it is enough for this share of the cost to let go of dead channels."""
        if not self.lossless:
            return False
        widths = {room.name: room.choices[0] for room in self._without_loss()}
        return self.cost(widths) <= fraction * self.cost({})

    def _without_loss(self) -> list[Room]:
        return [room.at_least(min(self.lossless.get(room.name, room.width), room.width)) for room in self.rooms]

    def losing_nothing(self, rounding: Rounding, graph: ChannelGraph, fraction: float) -> "Ladder":
        """Return the ladder, or, where the multiples of `rounding` alone make this share of the cost cost live channels, that with the coarsest finer ones."""
        if self.loses_nothing(fraction) or not self.lossless:
            return self
        finer = (replace(self, rooms=kind.again(graph, self.rooms)) for kind in rounding.finer)
        return next((ladder for ladder in finer if ladder.loses_nothing(fraction)), self)

    def loss(self, widths: Mapping[str, int]) -> float:
        """Return what these widths are likely to lose: the errors of all groups, or the share of the cost, where there are no curves."""
        if not self.curves:
            return 1.0 - self.fraction(widths)
        return sum(float(self.curves[room.name].dense(room.width)[widths[room.name]]) for room in self.rooms)

    def rounded(self, multiple: int) -> "Ladder":
        """Return the ladder with widths in multiples of this."""
        return replace(self, rooms=[room.rounded(multiple) for room in self.rooms])


def filled_up(ladder: Ladder, fraction: float, finer: Iterable[Sequence[Room]]) -> Ladder:
    """Return the ladder, or, where its widths leave much of the budget unused, one with the first of the `finer` rooms that uses it up, else the most of it.

    Whole blocks are a coarse grid for narrow groups: of 64 channels in blocks of 16, seven tenths are two blocks, half of them.
    """
    if ladder.loses_nothing(fraction):
        return ladder
    best, used = ladder, ladder.fraction(ladder.widths(fraction))
    for rooms in finer:
        if used >= CLOSE * fraction:
            break
        other = replace(ladder, rooms=rooms)
        if (more := other.fraction(other.widths(fraction))) > used:
            best, used = other, more
    return best


def candidate(task: Task, done: Reconstruction, rules: Mapping[str, Rule]) -> ModelProto:
    """Return the model that a walk leads to."""
    supports = {name: choice.support for name, choice in done.choices.items()}
    return apply(task.network, task.graph, Plan(supports=supports, weights=done.weights), rules=rules)
