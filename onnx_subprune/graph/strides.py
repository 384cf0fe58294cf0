"""A view by strides that an exporter writes as a Gather of all numbers, by places computed from the batch: the model is loaded with a Reshape in its place.

    flat = Reshape(x, [-1]);   Gather(flat, Range(N) * s + places)      places: 0 to s - 1, in the order of a tensor of s numbers
    Slice(Reshape(x, [-1, *shape of places]), 0, N)

PyTorch's exporter has it behind the pooling of ConvNeXt and Swin. Such a Gather reads at least N s numbers, or the model does not run.
"""

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_subprune.graph.names import fresh
from onnx_subprune.graph.operators import STANDARD, integer
from onnx_subprune.graph.order import rewritten
from onnx_subprune.graph.reshaped import axes_of, complete
from onnx_subprune.graph.stored import Stored

LARGEST = 1 << 16
"""Numbers of a sample in such a view."""
MOST = 16
"""Terms of the places, one for each axis and some zeros."""


def viewed(proto: ModelProto) -> ModelProto:
    """Return the model with such views as Reshapes; `proto` itself where it has none. It is not changed."""
    operators = {node.op_type for node in proto.graph.node if node.domain in STANDARD}
    if not {"Gather", "Mul", "Range", "Reshape"} <= operators or not complete(proto):
        return proto
    search = _Search(proto)
    nodes = list[NodeProto]()
    for node in proto.graph.node:
        nodes += search.written(node) or [node]
    return rewritten(proto, nodes, search.constants) if search.constants else proto


class _Search:
    """Looks for such views, and writes what takes their place."""

    def __init__(self, proto: ModelProto) -> None:
        self._known = Stored(proto)
        self._taken = {name for node in proto.graph.node for name in (*node.input, *node.output)}
        self._taken |= {tensor.name for tensor in proto.graph.initializer}
        self.constants: list[TensorProto] = []

    def written(self, node: NodeProto) -> list[NodeProto]:
        """Return the nodes in the place of a Gather; none if it is another one."""
        if node.op_type != "Gather" or node.domain not in STANDARD or integer(node, "axis", 0):
            return []
        flat = self._known.producer(node.input[0])
        if flat is None or flat.op_type != "Reshape" or self._known.number(flat.input[1]) != -1:
            return []
        terms = self._terms(node.input[1])
        computed = [name for name in terms if not self._known.known(name)]
        found = self._samples(computed[0]) if len(computed) == 1 else None
        values = [self._known.small(name, LARGEST) for name in terms if name not in computed]
        places = [value for value in values if value is not None and value.dtype == np.int64]
        if found is None or not places or len(places) < len(values):
            return []
        total = np.asarray(sum(places[1:], places[0]))
        length, stride, rank = found
        if total.ndim != rank or total.shape[0] != 1 or not np.array_equal(total.ravel(), np.arange(stride)):
            return []
        whole = fresh(self._taken, f"{node.output[0]}/all")
        shape, ends = self._constant(node, [-1, *total.shape[1:]]), fresh(self._taken, f"{node.output[0]}/end")
        zero, one = self._constant(node, [0]), self._constant(node, [1])
        return [
            helper.make_node("Reshape", [flat.input[0], shape], [whole]),
            helper.make_node("Reshape", [length, one], [ends]),
            helper.make_node("Slice", [whole, zero, ends, zero], [node.output[0]], name=node.name),
        ]

    def _terms(self, name: str) -> list[str]:
        """What a tensor is the sum of."""
        waiting, found = [name], list[str]()
        while waiting and len(found) < MOST:
            last = waiting.pop()
            node = self._known.producer(last)
            if node is not None and node.op_type == "Add":
                waiting += node.input
            else:
                found.append(last)
        return found

    def _samples(self, name: str) -> tuple[str, int, int] | None:
        """The number N, the stride, and the axes of Unsqueeze(Range(0, N, 1) * stride), all behind the first; None for anything else."""
        node = self._known.producer(name)
        if node is None or node.op_type != "Unsqueeze":
            return None
        axes, scaled = axes_of(self._known, node), self._known.producer(node.input[0])
        if scaled is None or scaled.op_type != "Mul" or axes != list(range(1, len(axes or []) + 1)):
            return None
        strides = [self._known.number(item) for item in scaled.input]
        stride = next((item for item in strides if item is not None), None)
        made = self._known.producer(next((item for item in scaled.input if not self._known.known(item)), ""))
        if stride is None or not 0 < stride <= LARGEST or made is None or made.op_type != "Range":
            return None
        if self._known.number(made.input[0]) != 0 or self._known.number(made.input[2]) != 1:
            return None
        return made.input[1], int(stride), len(axes) + 1

    def _constant(self, node: NodeProto, numbers: list[int]) -> str:
        name = fresh(self._taken, f"{node.output[0]}/sizes")
        self.constants.append(numpy_helper.from_array(np.array(numbers, np.int64), name))
        return name
