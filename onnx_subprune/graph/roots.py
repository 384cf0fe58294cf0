"""Numbers that exporters compute from a width at run time, though the file says it: the model is loaded with the width in their place.

The scale of attention is 1 / Sqrt(Cast(Shape(q)[-1])) in what TorchScript writes, or Pow(Cast(Shape(q)[-1]), -0.5), so that it would change with what goes.
Where q comes from a Reshape whose target has that size as a number, where -1 stands for what a number of heads leaves of a layer's width, or where a weight
tells it, it is a constant, and stays that of the original.
"""

from collections.abc import Callable, Mapping
from operator import add, floordiv, mul, sub

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from onnx_subprune._typing import Int64
from onnx_subprune.graph.operators import STANDARD, integer, whole_shape
from onnx_subprune.graph.order import rewritten
from onnx_subprune.graph.reshaped import Targets, complete
from onnx_subprune.graph.sizes import Sizes
from onnx_subprune.graph.stored import Stored

FLOATING = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
SCALING = frozenset(("Div", "Mul", "Pow", "Reciprocal", "Sqrt"))
"""What is made of a width to scale something."""
LONGEST = 8
"""Changes of layout between a Reshape and what the size is taken of."""
COMPUTED: Mapping[str, Callable[[int, int], int]] = {"Add": add, "Div": floordiv, "Mul": mul, "Sub": sub}
"""What is computed of sizes."""


def steadied(proto: ModelProto) -> ModelProto:
    """Return the model with such sizes as constants; `proto` itself where it has none. It is not changed."""
    if not any(node.op_type == "Shape" and node.domain in STANDARD for node in proto.graph.node) or not complete(proto):
        return proto
    search = _Search(proto)
    found = {name: value for node in proto.graph.node for name, value in search.at(node)}
    if not found:
        return proto
    nodes = [node for node in proto.graph.node if node.output[0] not in found]
    return rewritten(proto, nodes, [numpy_helper.from_array(value, name) for name, value in found.items()])


class _Search:
    """Looks for sizes that scale something."""

    def __init__(self, proto: ModelProto) -> None:
        self._known = Stored(proto)
        self._targets = Targets(self._known, Sizes(self._known).of)

    def at(self, node: NodeProto) -> list[tuple[str, Int64]]:
        """Return name and value of the size that a node makes a floating-point number of."""
        if node.op_type != "Cast" or integer(node, "to", 0) not in FLOATING:
            return []
        taken = self._known.producer(node.input[0])
        for _ in range(LONGEST):
            if taken is not None and taken.op_type in ("Identity", "Squeeze", "Unsqueeze"):
                taken = self._known.producer(taken.input[0])
        scales = any(reader.op_type in SCALING for reader in self._known.readers(node.output[0]))
        if taken is None or not scales:
            return []
        shape = self._known.producer(taken.input[0]) if taken.input else None
        if shape is None or not whole_shape(shape) or taken.output[0] in self._known.outputs:
            return []
        axis = self._axis(taken)
        size = None if axis is None else self._size(shape.input[0], axis) or self._told(shape.input[0], axis)
        if size is None:
            return []
        return [(taken.output[0], np.array(size if taken.op_type == "Gather" else [size], np.int64))]

    def _axis(self, node: NodeProto) -> int | None:
        """The axis, from the front or from the end, whose size a Gather or a Slice takes."""
        if node.op_type == "Gather":
            value = self._known.small(node.input[1])
            return int(value) if value is not None and value.ndim == 0 else None
        if node.op_type != "Slice" or len(node.input) < 3:
            return None
        start, end = (self._known.number(name) for name in node.input[1:3])
        if (
            start is None
            or end is None
            or any(self._known.number(name) not in (0, 1) for name in node.input[3:] if name)
        ):
            return None
        if len(node.input) > 4 and self._known.number(node.input[4]) != 1:
            return None
        return int(start) if end == start + 1 or (start == -1 and end > 1 << 30) else None

    def _size(self, name: str, axis: int, left: int = LONGEST) -> int | None:
        """The size of an axis that follows from a target of Reshape, through changes of layout and parts that are cut off behind it."""
        node = self._known.producer(name) if left else None
        if node is None:
            return None
        if node.op_type in ("Cast", "Identity"):
            return self._size(node.input[0], axis, left - 1)
        if node.op_type == "Reshape":
            sizes = self._targets.filled(node)
            size = sizes[axis] if sizes is not None and -len(sizes) <= axis < len(sizes) else None
            return size if isinstance(size, int) and size > 0 else None
        if node.op_type == "Slice" and len(node.input) >= 4:
            return self._cut(node, axis, left - 1)
        order = next((list(item.ints) for item in node.attribute if item.name == "perm"), [])
        if node.op_type != "Transpose" or not -len(order) <= axis < len(order):
            return None
        return self._size(node.input[0], order[axis], left - 1)

    def _told(self, name: str, axis: int) -> int | None:
        """The size of an axis that follows from the weights, and from sizes that the file declares of its inputs."""
        sizes = self._known.sizes(name) or ()
        return sizes[axis] if -len(sizes) <= axis < len(sizes) else None

    def _cut(self, node: NodeProto, axis: int, left: int) -> int | None:
        """What a Slice of one axis leaves of `axis`: as `torch.chunk` is written, from and to some third of its size."""
        at, rank = self._known.number(node.input[3]), self._rank(node.input[0])
        whole = self._size(node.input[0], axis, left)
        if at is None or whole is None or not rank:
            return None
        if int(at) % rank != axis % rank:
            return whole
        plain = len(node.input) < 5 or self._known.number(node.input[4]) == 1
        ends = [self._whole(name, left) for name in node.input[1:3]]
        if not plain or any(end is None for end in ends):
            return None
        start, end, _ = slice(*ends).indices(whole)
        return end - start if end > start else None

    def _rank(self, name: str) -> int:
        """The number of axes of a tensor; 0 where it is not known."""
        node = self._known.producer(name)
        if node is not None and node.op_type == "Transpose":
            return next((len(item.ints) for item in node.attribute if item.name == "perm"), 0)
        sizes = self._targets.sizes(node.input[1]) if node is not None and node.op_type == "Reshape" else None
        return self._known.rank(name) if sizes is None else len(sizes)

    def _whole(self, name: str, left: int) -> int | None:
        """A whole number that is computed of sizes."""
        number = self._known.number(name)
        node = self._known.producer(name) if left and number is None else None
        if node is None:
            return None if number is None else int(number)
        if node.op_type in ("Cast", "Identity", "Squeeze", "Unsqueeze"):
            return self._whole(node.input[0], left - 1)
        if node.op_type == "Gather":
            shape, axis = self._known.producer(node.input[0]), self._known.number(node.input[1])
            if shape is None or not whole_shape(shape) or axis is None:
                return None
            return self._size(shape.input[0], int(axis), left - 1)
        if node.op_type not in COMPUTED:
            return None
        first, second = (self._whole(item, left - 1) for item in node.input[:2])
        if first is None or second is None or (node.op_type == "Div" and (first < 0 or second <= 0)):
            return None
        return COMPUTED[node.op_type](first, second)
