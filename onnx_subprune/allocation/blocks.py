"""Allocation for kernels that work on blocks of channels: multiply-accumulates within the limit, and the work nearly so.

Half the multiply-accumulates are not half the time: a kernel computes whole blocks of output channels, and much of a network of depthwise
convolutions is not multiplied at all. An axis of several groups (a residual stream that a shortcut pads) has to be a whole number of blocks as a whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onnx_subprune.allocation.marginal import MarginalCost
from onnx_subprune.allocation.multilinear import Multilinear
from onnx_subprune.allocation.widths import Allocator, Bound, Curve, Room, filled
from onnx_subprune.errors import BudgetError

SAVED, LEFT = 0.9, 0.2
"""So much of the saving that is asked for in multiply-accumulates has to be saved in work at least: 1 less `LEFT` times that saving, where this is more.

The deeper the cut, the more of the time is what no width changes. At 0.9 networks took 0.74 to 0.85 of the time at 0.7 of the multiply-accumulates, at 0.95
0.73 to 0.81 (YOLOv8n, MobileNetV3, ResNet-20, `resnet_fashion`); at half 0.95 brings 0.03 to 0.06 of the time, and costs ResNet-56 0.3 points."""
NEAR = 0.85
"""Where the work cannot be brought within its limit, no more than this share of the multiply-accumulates that are allowed is given up for it."""
DEARER = 3.0
"""... nor so many times the loss, where less than that share is left."""
MIXTURES = (0.0, 0.5, 1.0)
"""Shares of the multiply-accumulates in the costs that are tried; the rest is work."""
LIMITS = (1.04, 1.0, 0.97, 0.94, 0.9)
"""What is tried as the limit of such a cost, in units of the limits of its parts."""


@dataclass(frozen=True, slots=True)
class BlockAware:
    """Of several allocations within the limit, the one with the least error whose work is within its own limit.

    Where there is none, that with the least work of those near the limit. beside: work of the model as it is that goes at any widths.
    saves: how much more time goes, measured, than work; so much less of it has to.
    """

    inner: MarginalCost
    work: Multilinear
    beside: float = 0.0
    saves: float = 1.0

    def allocate(
        self, rooms: Sequence[Room], curves: Mapping[str, Curve], cost: Multilinear, limit: float
    ) -> Mapping[str, int]:
        """See `Allocator`; one step wider, a group can go beyond the limit of the work instead of `limit`."""
        first = self.inner.allocate(rooms, curves, cost, limit)
        return _Search(self, rooms, curves, cost, limit, first).found()

    def allowed(self, share: float) -> float:
        """Return the work that goes with so much of the multiply-accumulates."""
        saved = max(SAVED, 1.0 - LEFT * (1.0 - share)) / self.saves
        return (1.0 - saved * (1.0 - share)) * (self.work({}) + self.beside)


@dataclass(frozen=True, slots=True)
class _Search:
    """What is allocated for; `first` is what comes out where the work does not count."""

    by: BlockAware
    rooms: Sequence[Room]
    curves: Mapping[str, Curve]
    cost: Multilinear
    limit: float
    first: Mapping[str, int]

    def found(self) -> Mapping[str, int]:
        """Return the allocation."""
        share = self.limit / self.cost({})
        allowed = self.by.allowed(share)
        if self.by.work(self.first) <= allowed:
            return self.first
        left = allowed / self.by.work({})
        found = [self.first]
        for mixture in MIXTURES:
            mixed = _mixed(self.cost, self.by.work, mixture)
            for part in LIMITS:
                at = part * (mixture * share + (1.0 - mixture) * left)
                try:
                    widths = self.by.inner.allocate(self.rooms, self.curves, mixed, at)
                except BudgetError:
                    break
                if self.cost(widths) <= self.limit:
                    found.append(widths)
        bound = Bound(self.cost, self.limit, self.by.work, allowed)
        errors = self.by.inner.tempered(self.rooms, self.curves)

        def lost(widths: Mapping[str, int]) -> float:
            return sum(float(errors[room.name][widths[room.name]]) for room in self.rooms)

        within = [filled(self.rooms, widths, errors, bound) for widths in found if bound.allows(widths)]
        within = [
            widths
            for widths in within
            if self.cost(widths) >= NEAR * self.limit or lost(widths) <= DEARER * lost(self.first)
        ]
        if within:
            return min(within, key=lost)
        near = [widths for widths in found if self.cost(widths) >= NEAR * self.limit]
        return min(near or found, key=self.by.work)


def block_aware(allocator: Allocator, work: Multilinear, block: int, beside: float = 0.0) -> Allocator:
    """Return what allocates multiply-accumulates for kernels with blocks of so many channels."""
    return BlockAware(allocator, work, beside) if isinstance(allocator, MarginalCost) and block > 1 else allocator


def _mixed(cost: Multilinear, work: Multilinear, share: float) -> Multilinear:
    """`share` of one cost and the rest of the other, each in units of the full model's."""
    parts = ((cost, share / cost({})), (work, (1.0 - share) / work({})))
    terms = (
        replace(term, coefficient=term.coefficient * scale) for part, scale in parts if scale for term in part.terms
    )
    return Multilinear(terms=tuple(terms), full=cost.full)
