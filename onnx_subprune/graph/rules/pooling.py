"""Pooling over positions, reductions over axes, selection along an axis."""

import numpy as np

from onnx_subprune.graph.rules.vocabulary import Rule, Scope, UnknownError

REDUCTIONS = [
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
]


def pooling(scope: Scope) -> None:
    """Each channel is pooled by itself; MaxPool's indices count over channels, so they pin them."""
    if len(scope.node.output) > 1 and scope.node.output[1]:
        raise UnknownError("its indices count over all channels")
    for axis in (0, 1):
        scope.tie(scope.input(0, axis), scope.output(axis))


def _reduce(scope: Scope, axes: set[int], *, keep: bool) -> None:
    """Tie the axes that stay; a reduced axis is left unmentioned, but where a constant says which of its positions count."""
    rank = len(scope.shape(0))
    out = 0
    for axis in range(rank):
        if axis in axes:
            if scope.node.input[0] in scope.network.spelled.weighed and len(axes) == 1:
                scope.input(0, axis)
                if keep:
                    scope.output(out)
            out += keep
        else:
            scope.tie(scope.input(0, axis), scope.output(out))
            out += 1


def reduction(scope: Scope) -> None:
    """Reduce* with axes as attribute or input."""
    rank = len(scope.shape(0))
    axes: tuple[int, ...] = scope.integers("axes") or ()
    if scope.has(1):
        value = scope.value(1)
        if value is None or np.any(scope.varies(1)):
            raise UnknownError("its axes are computed at run time")
        axes = tuple(int(v) for v in value)
    if not axes and scope.integer("noop_with_empty_axes", 0):
        reduced: set[int] = set()
    else:
        reduced = {axis % rank for axis in axes} or set(range(rank))
    _reduce(scope, reduced, keep=bool(scope.integer("keepdims", 1)))


def selection(scope: Scope) -> None:
    """ArgMax, ArgMin: positions along one axis."""
    axis = scope.integer("axis", 0) % len(scope.shape(0))
    _reduce(scope, {axis}, keep=bool(scope.integer("keepdims", 1)))


RULES = {
    **dict.fromkeys(
        ("AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), Rule(pooling)
    ),
    **dict.fromkeys(REDUCTIONS, Rule(reduction)),
    **dict.fromkeys(("ArgMax", "ArgMin"), Rule(selection)),
}
