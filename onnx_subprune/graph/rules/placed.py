"""Operators that take, turn, sort or blank positions within each channel: GridSample, RoiAlign, ReverseSequence, Trilu, TopK and others.

The axes that they move positions along stay. Along the others a position of the output is made of the same position of the input.
"""

from collections.abc import Collection

from onnx_subprune.graph.rules.vocabulary import Rule, Scope


def _apart_from(scope: Scope, moved: Collection[int]) -> None:
    """Tie all axes of the first input but these to those of every output."""
    rank = len(scope.shape(0))
    for axis in set(range(rank)).difference(axis % rank for axis in moved):
        for which, name in enumerate(scope.node.output):
            if name:
                scope.tie(scope.input(0, axis), scope.output(axis, which))


def sampled(scope: Scope) -> None:
    """GridSample: reads each map at the points of a grid, all channels at the same ones."""
    _apart_from(scope, range(2, len(scope.shape(0))))


def regions(scope: Scope) -> None:
    """RoiAlign, MaxRoiPool: pool regions of each map, all channels the same ones; the axis of samples becomes that of regions."""
    _apart_from(scope, (0, 2, 3))


def reversed_steps(scope: Scope) -> None:
    """ReverseSequence: turns each sample's steps around, as many as it has."""
    _apart_from(scope, (scope.integer("time_axis", 0), scope.integer("batch_axis", 1)))


def triangle(scope: Scope) -> None:
    """Trilu: zeros beside a diagonal of the last two axes."""
    _apart_from(scope, (-2, -1))


def sorted_along(scope: Scope) -> None:
    """TopK: the largest numbers along one axis, and where they lie."""
    _apart_from(scope, (scope.integer("axis", -1),))


def centred(scope: Scope) -> None:
    """CenterCropPad: cuts, or pads with zeros, along some axes."""
    _apart_from(scope, scope.integers("axes") or range(len(scope.shape(0))))


RULES = {
    "CenterCropPad": Rule(centred),
    "GridSample": Rule(sampled),
    "MaxRoiPool": Rule(regions),
    "ReverseSequence": Rule(reversed_steps),
    "RoiAlign": Rule(regions),
    "TopK": Rule(sorted_along),
    "Trilu": Rule(triangle),
}
