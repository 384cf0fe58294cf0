"""Allocation for kernels that work on blocks of channels: multiply-accumulates within the limit, and the work nearly so.

Half the multiply-accumulates are not half the time: a kernel computes whole blocks of output channels, and few of them as slowly as
several. An axis of several groups (a residual stream that a shortcut pads) has to be a whole number of blocks as a whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onnx_subprune.allocation.allocator import Allocator, Curve, Room
from onnx_subprune.allocation.cost import Multilinear
from onnx_subprune.allocation.marginal import MarginalCost
from onnx_subprune.errors import BudgetError

WORK = 0.88
"""The share of the work that may be left, in units of that of the multiply-accumulates: the rest, as adding and starting, hardly gets less."""
MIXTURES = (0.0, 0.5, 1.0)
"""Shares of the multiply-accumulates in the costs that are tried; the rest is work."""
LIMITS = (1.0, 0.97, 0.94, 0.9)
"""What is tried as the limit of such a cost, in units of the limits of its parts."""


@dataclass(frozen=True, slots=True)
class BlockAware:
    """Of several allocations within the limit, the one with the least error whose work is within its own limit; else with the least work."""

    inner: MarginalCost
    work: Multilinear

    def allocate(
        self, rooms: Sequence[Room], curves: Mapping[str, Curve], cost: Multilinear, limit: float
    ) -> Mapping[str, int]:
        """See `Allocator`; one step wider, a group can go beyond the limit of the work instead of `limit`."""
        first = self.inner.allocate(rooms, curves, cost, limit)
        share, most = limit / cost({}), self.work({})
        allowed = WORK * share * most
        if self.work(first) <= allowed:
            return first
        found = [first]
        for mixture in MIXTURES:
            mixed = _mixed(cost, self.work, mixture)
            for part in LIMITS:
                at = part * share * (mixture + (1.0 - mixture) * WORK)
                try:
                    widths = self.inner.allocate(rooms, curves, mixed, at)
                except BudgetError:
                    break
                if cost(widths) <= limit:
                    found.append(widths)
        within = [widths for widths in found if self.work(widths) <= allowed]
        if not within:
            return min(found, key=self.work)
        return min(within, key=lambda widths: self.inner.error(rooms, curves, widths))


def block_aware(allocator: Allocator, work: Multilinear, block: int) -> Allocator:
    """Return what allocates multiply-accumulates for kernels with blocks of so many channels."""
    return BlockAware(allocator, work) if isinstance(allocator, MarginalCost) and block > 1 else allocator


def _mixed(cost: Multilinear, work: Multilinear, share: float) -> Multilinear:
    """`share` of one cost and the rest of the other, each in units of the full model's."""
    parts = ((cost, share / cost({})), (work, (1.0 - share) / work({})))
    terms = (
        replace(term, coefficient=term.coefficient * scale) for part, scale in parts if scale for term in part.terms
    )
    return Multilinear(terms=tuple(terms), full=cost.full)
