"""The numbers of a shape that a model computes at run time, as far as its file tells them or whose axes they are.

TorchScript takes Q, K and V apart with Concat(Slice(Shape(y), 0, 2), [3], Unsqueeze(Squeeze(Slice(Shape(x), -1)))): two axes of y, 3, the last size of x.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import add, floordiv, mod, mul, sub

from onnx import NodeProto, TensorProto

from onnx_subprune.graph.operators import integer, whole_shape
from onnx_subprune.graph.stored import Size, Stored

DEPTH = 16
"""Operators that are followed."""
COMPUTED: Mapping[str, Callable[[int, int], int]] = {"Add": add, "Div": floordiv, "Mod": mod, "Mul": mul, "Sub": sub}
"""What is computed of sizes."""
SLICED = 3
"""Inputs of a Slice that has its ends as inputs."""
WHOLE = (TensorProto.INT32, TensorProto.INT64)
"""Types that hold every size."""


class Sizes:
    """Looks at tensors that hold sizes."""

    def __init__(self, known: Stored) -> None:
        self._known = known

    def of(self, name: str, depth: int = DEPTH) -> list[Size] | None:
        """Return the numbers of a tensor of at most one axis; None where not even their count is known."""
        if self._known.known(name):
            value = self._known.small(name)
            return None if value is None or value.dtype.kind not in "iu" else [int(item) for item in value.ravel()]
        node = self._known.producer(name)
        if node is None or not depth:
            return None
        if node.op_type == "Identity" or (node.op_type == "Cast" and integer(node, "to", 0) in WHOLE):
            return self.of(node.input[0], depth - 1)
        if node.op_type in ("Squeeze", "Unsqueeze"):
            return self.of(node.input[0], depth - 1)
        if node.op_type == "Reshape":
            found = self.of(node.input[0], depth - 1)
            plain = found and (self._known.number(node.input[1]) == -1 or len(found) == 1)
            return found if found and plain and None not in found else None  # one that is not known may be several
        if node.op_type == "Concat":
            return self._joined(node, depth)
        if node.op_type in COMPUTED:
            return self._computed(node, depth)
        return self._taken(node, depth)

    def _joined(self, node: NodeProto, depth: int) -> list[Size] | None:
        if integer(node, "axis", 0) not in (0, -1):
            return None
        found = list[Size]()
        for item in node.input:
            part = self.of(item, depth - 1)
            made = self._known.producer(item)
            if part is None and made is not None and made.op_type == "Unsqueeze":
                part = [None]  # of a single number, since what is joined has one axis
            if part is None:
                return None
            found += part
        return found

    def _computed(self, node: NodeProto, depth: int) -> list[Size] | None:
        one, other = (self.of(item, depth - 1) for item in node.input[:2])
        if not one or not other or len({len(one), len(other)} - {1}) > 1:
            return None
        count = max(len(one), len(other))
        pairs = zip(one * (count // len(one)), other * (count // len(other)), strict=True)
        return [self._result(node.op_type, *pair) for pair in pairs]

    def _result(self, operator: str, one: Size, other: Size) -> int | None:
        if not isinstance(one, int) or not isinstance(other, int):
            return None
        if operator in ("Div", "Mod") and (one < 0 or other <= 0):  # runtimes round them otherwise
            return None
        return COMPUTED[operator](one, other)

    def _taken(self, node: NodeProto, depth: int) -> list[Size] | None:
        """What a Shape has, and what a Gather or a Slice takes of sizes."""
        if node.op_type == "Shape":
            return self._shape(node)
        if node.op_type == "Gather" and integer(node, "axis", 0) in (0, -1):
            asked, given = self.of(node.input[1], depth - 1), self.of(node.input[0], depth - 1)
            places = [item for item in asked or [] if isinstance(item, int)]
            return self._some(node, given, places) if asked is not None and len(places) == len(asked) else None
        if node.op_type != "Slice" or len(node.input) < SLICED:
            return None
        numbers = [self.of(name, depth - 1) for name in node.input[1:]]
        single: list[Size] = [item[0] if item and len(item) == 1 else None for item in numbers]
        start, end, axis, step = single + [0, 1][len(single) - 2 :]
        if not isinstance(start, int) or not isinstance(end, int) or axis not in (0, -1) or step != 1:
            return None
        given = self.of(node.input[0], depth - 1)
        if given is not None:
            return given[start:end]
        return self._some(node, None, [start]) if end == start + 1 else None

    def _some(self, node: NodeProto, given: list[Size] | None, places: Sequence[int]) -> list[Size] | None:
        """These numbers of sizes, also of a tensor whose rank is not known, if they are counted from its first axis."""
        if given is not None:
            return [given[place] for place in places] if all(-len(given) <= at < len(given) for at in places) else None
        shape = self._known.producer(node.input[0])
        for _ in range(DEPTH):
            if shape is not None and shape.op_type in ("Cast", "Identity"):
                shape = self._known.producer(shape.input[0])
        whole = whole_shape(shape)
        known = whole and bool(places) and min(places) >= 0
        return [(shape.input[0], at) for at in places] if shape is not None and known else None

    def _shape(self, node: NodeProto) -> list[Size] | None:
        """The axes of a tensor, the last one as a number where that follows from what the file declares."""
        source, start = node.input[0], integer(node, "start", 0)
        rank, end = self._known.rank(source), next((item.i for item in node.attribute if item.name == "end"), None)
        if not rank:
            return [(source, start)] if start >= 0 and end == start + 1 else None
        found: list[Size] = [(source, axis) for axis in range(rank)]
        declared = self._known.sizes(source)
        if declared is not None and len(declared) == rank and declared[-1] is not None:
            found[-1] = declared[-1]
        return found[start:end]
