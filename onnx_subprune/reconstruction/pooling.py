"""Contractions that have one weight pose one problem: their moments add up, each about its own means."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add

from onnx_subprune.calibration.moments.halves import Halves
from onnx_subprune.calibration.moments.moments import Moments
from onnx_subprune.calibration.moments.regression import Regression
from onnx_subprune.calibration.moments.rows import Rows
from onnx_subprune.graph.channels import ChannelGraph, Consumer, Use

MANY, LARGEST = 2, 8192
"""Rows that times this are more than the columns become a gram, if it has at most so many columns: selection among as many rows is more work."""


def families(graph: ChannelGraph, consumers: Sequence[Consumer]) -> list[list[Consumer]]:
    """Return the consumers, those that have one weight together, in the order of the first of each."""
    found: dict[Use, list[Consumer]] = {}
    for consumer in consumers:
        found.setdefault(graph.together(consumer.contraction)[0].weight, []).append(consumer)
    return list(found.values())


def pooled(samples: Sequence[Sequence[Regression]]) -> list[Regression] | None:
    """Return, for each set of samples, the sum of the regressions of contractions that have one weight.

    samples: the regressions in each of them. Many rows become moments, in all sets; None where some are moments and others rows, or rows more than so
    many columns that their gram is too large.
    """
    if len(samples[0]) == 1:
        return [parts[0] for parts in samples]
    sums = [[part for part in parts if isinstance(part, Moments)] for parts in samples]
    rows = [[part.plain() for part in parts if isinstance(part, Rows)] for parts in samples]
    if all(len(found) == len(parts) for found, parts in zip(sums, samples, strict=True)):
        return [reduce(add, parts) for parts in sums]
    if any(len(found) < len(parts) for found, parts in zip(rows, samples, strict=True)):
        return None
    count, columns = max(sum(part.count for part in parts) for parts in rows), rows[0][0].columns
    if MANY * count > columns and columns <= LARGEST:
        return [reduce(add, parts).moments() for parts in rows]
    return None if count > columns else [reduce(add, parts) for parts in rows]


def pooled_halves(members: Sequence[Halves], centered: Sequence[bool]) -> Halves | None:
    """Return the halves of contractions that have one weight, each about its own means where it is `centered`; None as in `pooled`.

    A contraction alone is left as it is.
    """
    if len(members) == 1:
        return members[0]
    own = [
        [item.centered() if about else item for item in halves.parts]
        for halves, about in zip(members, centered, strict=True)
    ]
    whole = pooled([*zip(*own, strict=False)])
    return None if whole is None else Halves.of(whole)


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
