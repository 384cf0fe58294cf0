"""Operators that take and put rows by indices: GatherElements, ScatterElements, GatherND, ScatterND; graph networks sum over edges with them.

The axes that indices count along stay. Along the others a position of what is put in is the same position of what comes out.
"""

from onnx_subprune.graph.rules.vocabulary import Rule, Scope


def elements(scope: Scope) -> None:
    """GatherElements, ScatterElements: all axes but the one that indices count along, where they are as long in data and indices."""
    shape = scope.shape(0)
    along = scope.integer("axis", 0) % len(shape)
    for axis, size in enumerate(shape):
        if axis != along and scope.shape(1)[axis] == size:
            for slot in range(len(scope.node.input)):
                scope.tie(scope.input(slot, axis), scope.output(axis))


def gather_nd(scope: Scope) -> None:
    """GatherND: the axes behind those that indices count along."""
    rank, places = len(scope.shape(0)), scope.shape(1)
    batch = scope.integer("batch_dims", 0)
    for axis in range(batch + places[-1], rank):
        scope.tie(scope.input(0, axis), scope.output(axis - rank + len(scope.out_shape())))


def scatter_nd(scope: Scope) -> None:
    """ScatterND: the axes behind those that indices count along."""
    rank, updates = len(scope.shape(0)), len(scope.shape(2))
    for axis in range(scope.shape(1)[-1], rank):
        scope.tie(scope.input(0, axis), scope.output(axis))
        scope.tie(scope.input(2, axis - rank + updates), scope.output(axis))


RULES = {
    **dict.fromkeys(("GatherElements", "Scatter", "ScatterElements"), Rule(elements)),
    "GatherND": Rule(gather_nd),
    "ScatterND": Rule(scatter_nd),
}
