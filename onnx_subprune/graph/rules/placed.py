"""Operators that take, turn, sort, blank or transform positions within each channel: GridSample, RoiAlign, ReverseSequence, Trilu, TopK, DFT and others.

The axes that they move positions along stay. Along the others a position of the output is made of the same position of the input.
"""

from collections.abc import Collection

import numpy as np

from onnx_subprune.graph.rules.vocabulary import Rule, Scope, UnknownError


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


def transformed(scope: Scope) -> None:
    """DFT: along one axis, of numbers whose real and imaginary parts are on the last one. Its axis is an input since opset 20."""
    axis: int | None = scope.integer("axis", 1)
    if scope.network.opset >= SINCE:
        value = scope.value(2) if scope.has(2) else np.array(-2)
        axis = None if value is None else int(value.item())
    if axis is None:
        raise UnknownError("its axis is computed at run time")
    _apart_from(scope, (axis, -1))


def folded(scope: Scope) -> None:
    """Col2Im: adds up the patches of each channel, whose numbers follow one another on the second axis."""
    scope.tie(scope.input(0, 0), scope.output(0))
    channels = scope.output(1)
    scope.tie(scope.input(0, 1).reshape(len(channels), -1), channels[:, None])


SINCE = 20
"""The opset that has made an input of an attribute of DFT."""
RULES = {
    "CenterCropPad": Rule(centred),
    "Col2Im": Rule(folded),
    "DFT": Rule(transformed),
    "GridSample": Rule(sampled),
    "MaxRoiPool": Rule(regions),
    "ReverseSequence": Rule(reversed_steps),
    "RoiAlign": Rule(regions),
    "TopK": Rule(sorted_along),
    "Trilu": Rule(triangle),
}
