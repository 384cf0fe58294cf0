"""Contractions that have one weight pose one problem: their moments add up, each about its own means."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add

from onnx_subprune.calibration.moments.halves import Halves
from onnx_subprune.calibration.moments.moments import Moments
from onnx_subprune.calibration.moments.regression import Regression
from onnx_subprune.calibration.moments.rows import Rows
from onnx_subprune.graph.channels import ChannelGraph, Consumer, Use


def families(graph: ChannelGraph, consumers: Sequence[Consumer]) -> list[list[Consumer]]:
    """Return the consumers, those that have one weight together, in the order of the first of each."""
    found: dict[Use, list[Consumer]] = {}
    for consumer in consumers:
        found.setdefault(graph.together(consumer.contraction)[0].weight, []).append(consumer)
    return list(found.values())


def pooled(parts: Sequence[Regression]) -> Regression | None:
    """Return the sum of the regressions of contractions that have one weight; None where some are moments and others rows, or rows more than columns."""
    if len(parts) == 1:
        return parts[0]
    sums = [part for part in parts if isinstance(part, Moments)]
    rows = [part.plain() for part in parts if isinstance(part, Rows)]
    if len(sums) == len(parts):
        return reduce(add, sums)
    if len(rows) < len(parts) or sum(part.count for part in rows) > rows[0].columns:
        return None
    return reduce(add, rows)


def pooled_halves(members: Sequence[Halves], centered: Sequence[bool]) -> Halves | None:
    """Return the halves of contractions that have one weight, each about its own means where it is `centered`; None as in `pooled`.

    A contraction alone is left as it is.
    """
    if len(members) == 1:
        return members[0]
    count = min(len(halves.parts) for halves in members)
    sums = []
    for part in range(count):
        parts = [halves.parts[part] for halves in members]
        sums.append(pooled([item.centered() if own else item for item, own in zip(parts, centered, strict=True)]))
    whole = [item for item in sums if item is not None]
    return Halves.of(whole) if len(whole) == count else None


def problems_of(
    graph: ChannelGraph, consumers: Sequence[Consumer], moments: Mapping[Use, Halves]
) -> list[tuple[Consumer, Halves]]:
    """Return a consumer for each problem that `consumers` pose, with its moments: one for all that have one weight."""
    found: list[tuple[Consumer, Halves]] = []
    for family in families(graph, consumers):
        members = [moments[consumer.weight] for consumer in family]
        total = pooled_halves(members, [True] * len(members))
        found += [*zip(family, members, strict=True)] if total is None else [(family[0], total)]
    return found
