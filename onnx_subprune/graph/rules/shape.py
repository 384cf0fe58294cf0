"""Operators that read only the size of their input. What their result is used for decides whether the size may change."""

from onnx_subprune.graph.rules.vocabulary import Rule, Scope


def size(scope: Scope) -> None:
    """Shape, Size: no position of the input is looked at."""
    for axis in range(len(scope.shape(0))):
        scope.input(0, axis)


RULES = {"Shape": Rule(size), "Size": Rule(size)}
