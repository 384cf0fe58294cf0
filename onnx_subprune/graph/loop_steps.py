"""How often a Loop runs: whether it is once for each step of the data that its body takes apart."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from onnx_subprune.graph.loop_bodies import Body
from onnx_subprune.graph.operators import attribute
from onnx_subprune.graph.stored import Size, Stored

ENDLESS = (1 << 31) - 1
"""A Loop of so many steps at most ends by its condition."""
FOLLOWED = 32
"""Operators that are followed."""
ALIKE = ("Cast", "Identity", "ReverseSequence")
"""What these make has the axes of what they are given."""


class Steps:
    """The first axis of the tensor `sequence`, and what is as many. sizes: the numbers of a tensor; outside: what carried values of a body begin with."""

    def __init__(
        self, known: Stored, sizes: Callable[[str], list[Size] | None], sequence: str, outside: Mapping[str, str]
    ) -> None:
        self._known, self._sizes, self._outside = known, sizes, outside
        self._axis = self._origin(sequence, 0)
        self._count = (known.sizes(sequence) or (None,))[0]

    def are(self, name: str) -> bool:
        """Return whether a number outside of the body is that of the steps."""
        name = self._uncast(name)
        value = self._known.number(name)
        if value is not None:
            return value == self._count
        found = self._sizes(name)
        if not found or len(found) != 1 or found[0] is None:
            return False
        return found[0] == self._count if isinstance(found[0], int) else self._origin(*found[0]) == self._axis

    def endless(self, name: str) -> bool:
        """Return whether a number of steps is none."""
        value = self._known.number(name) if name else ENDLESS
        return value is not None and value >= ENDLESS

    def starts(self, name: str) -> bool:
        """Return whether a condition outside is true where there is a step."""
        constant = self._known.small(name) if name else np.ones(())
        if constant is not None:
            return bool(constant.all())
        node = self._known.producer(self._uncast(name))
        if node is not None and node.op_type == "And":
            return all(map(self.starts, node.input))
        less = node is not None and node.op_type == "Less"
        return less and node is not None and self._known.number(node.input[0]) == 0.0 and self.are(node.input[1])

    def inside(self, body: Body, name: str) -> bool:
        """Return whether a number in the body is that of the steps."""
        name = uncast(body, name)
        value = body.number(name)
        if value is not None:
            return value == self._count
        return name not in body.made and self.are(self._outside.get(name, name))

    def _uncast(self, name: str) -> str:
        for _ in range(FOLLOWED):
            node = self._known.producer(name)
            if node is None or node.op_type not in ("Cast", "Identity"):
                break
            name = node.input[0]
        return name

    def _origin(self, name: str, axis: int) -> tuple[str, int]:
        """The axis of an earlier tensor that this one is."""
        for _ in range(FOLLOWED):
            node = self._known.producer(name)
            order = attribute(node, "perm") if node is not None and node.op_type == "Transpose" else None
            if node is None or not (node.op_type in ALIKE or isinstance(order, list)):
                break
            name, axis = node.input[0], order[axis] if isinstance(order, list) else axis
        return name, axis


def uncast(body: Body, name: str) -> str:
    """Return the tensor of a body that a number is a Cast of."""
    while (node := body.node(name, "Cast")) is not None:
        name = node.input[0]
    return body.source(name)


def body_ends(body: Body, steps: Steps, name: str, counters: Mapping[str, str], given: Sequence[str]) -> bool | None:
    """Return whether a condition ends a Loop behind the last step; None where it may end it at another.

    counters: numbers of the step by what they are at the next. given: the number of the step, and the condition before.
    """
    value = body.values.get(body.source(name))
    if body.source(name) == given[1] or (value is not None and value.all()):
        return False
    both = body.node(name, "And")
    if both is not None:
        found = [body_ends(body, steps, item, counters, given) for item in both.input]
        return None if None in found else any(found)
    less = body.node(name, "Less")
    if less is None or not steps.inside(body, less.input[1]):
        return None
    count = uncast(body, less.input[0])
    if count in counters.values():
        return True
    return False if count in counters or count == given[0] else None
