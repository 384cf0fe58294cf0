"""Numbers that exporters compute from the size of a head at run time, though the file says it: the model is loaded with the size in their place.

The scale of attention is 1 / Sqrt(Cast(Shape(q)[-1])) in what TorchScript writes, so that it would change with what goes. Where q comes from a Reshape whose
target has that size as a number, it is a constant, and stays that of the original.
"""

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from onnx_subprune._typing import Int64
from onnx_subprune.graph.operators import STANDARD
from onnx_subprune.graph.order import rewritten
from onnx_subprune.graph.reshaped import Targets, complete, integer
from onnx_subprune.graph.stored import Stored

FLOATING = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
LONGEST = 8
"""Changes of layout between a Reshape and what the size is taken of."""


def steadied(proto: ModelProto) -> ModelProto:
    """Return the model with such sizes as constants; `proto` itself where it has none. It is not changed."""
    if not any(node.op_type == "Sqrt" and node.domain in STANDARD for node in proto.graph.node) or not complete(proto):
        return proto
    search = _Search(proto)
    found = {name: value for node in proto.graph.node for name, value in search.at(node)}
    if not found:
        return proto
    nodes = [node for node in proto.graph.node if node.output[0] not in found]
    return rewritten(proto, nodes, [numpy_helper.from_array(value, name) for name, value in found.items()])


class _Search:
    """Looks for roots of sizes."""

    def __init__(self, proto: ModelProto) -> None:
        self._known = Stored(proto)
        self._targets = Targets(self._known)

    def at(self, node: NodeProto) -> list[tuple[str, Int64]]:
        """Return name and value of the size that the root of a size is taken of."""
        if node.op_type != "Cast" or integer(node, "to", 0) not in FLOATING:
            return []
        taken = self._known.producer(node.input[0])
        for _ in range(LONGEST):
            if taken is not None and taken.op_type in ("Identity", "Squeeze", "Unsqueeze"):
                taken = self._known.producer(taken.input[0])
        if not any(reader.op_type == "Sqrt" for reader in self._known.readers(node.output[0])) or taken is None:
            return []
        shape = self._known.producer(taken.input[0]) if taken.input else None
        if shape is None or shape.op_type != "Shape" or shape.attribute or taken.output[0] in self._known.outputs:
            return []
        axis = self._axis(taken)
        size = None if axis is None else self._size(shape.input[0], axis)
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

    def _size(self, name: str, axis: int) -> int | None:
        """The size of an axis that a target of Reshape has as a number."""
        for _ in range(LONGEST):
            node = self._known.producer(name)
            if node is None:
                return None
            if node.op_type == "Reshape":
                sizes = self._targets.sizes(node.input[1])
                size = sizes[axis] if sizes is not None and -len(sizes) <= axis < len(sizes) else None
                return size if isinstance(size, int) and size > 0 else None
            order = next((list(item.ints) for item in node.attribute if item.name == "perm"), [])
            if node.op_type != "Transpose" or not -len(order) <= axis < len(order):
                return None
            name, axis = node.input[0], order[axis]
        return None
