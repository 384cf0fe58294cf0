"""What is known of a model before it is loaded: constants that its file holds, who makes and who reads what, and ranks."""

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from onnx_subprune._typing import Array
from onnx_subprune.graph.operators import STANDARD

FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)
HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
SMALL = 64
"""Largest constant whose value is looked at, in numbers."""
Size = int | tuple[str, int] | None
"""A number; an axis of a tensor; None where it is not known."""


class Stored:
    """Constants of a model, who makes what and who reads it, without its values."""

    def __init__(self, proto: ModelProto) -> None:
        graph = proto.graph
        inputs = {value.name for value in graph.input}
        self._made = {name: node for node in graph.node for name in node.output if name}
        self._stored: dict[str, TensorProto] = {t.name: t for t in graph.initializer if t.name not in inputs}
        for node in graph.node:
            if node.op_type == "Constant" and node.domain in STANDARD:
                self._stored.update((node.output[0], item.t) for item in node.attribute if item.name == "value")
            elif node.op_type == "Identity" and node.input[0] in self._stored:
                self._stored[node.output[0]] = self._stored[node.input[0]]
        self._readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self.outputs = frozenset(value.name for value in graph.output)
        self._proto = proto
        self._inferred: dict[str, tuple[int | None, ...]] | None = None
        declared = _sizes_of([*graph.input, *graph.value_info, *graph.output])
        self._ranks = {name: len(sizes) for name, sizes in declared.items()}
        self.half = any(tensor.data_type in HALF for tensor in graph.initializer)

    def producer(self, name: str) -> NodeProto | None:
        """Return the standard node that makes a tensor, unless that is a constant."""
        node = self._made.get(name)
        return node if node is not None and node.domain in STANDARD and name not in self._stored else None

    def maker(self, name: str) -> str:
        """Return the operator that makes a tensor; empty for an input."""
        return self._made[name].op_type if name in self._made else ""

    def readers(self, name: str) -> list[NodeProto]:
        """Return the nodes that read a tensor, as often as they do."""
        return self._readers.get(name, [])

    def rank(self, name: str) -> int:
        """Return the number of axes of a tensor, declared or inferred; 0 where it is not known."""
        if name not in self._ranks:
            return len(self.sizes(name) or ())
        return self._ranks[name]

    def sizes(self, name: str) -> tuple[int | None, ...] | None:
        """Return the sizes of a tensor that follow from those that are declared of inputs and constants, None where that is open.

        None for a tensor whose rank is not known.
        """
        if self._inferred is None:
            self._inferred = _sizes_of(_inferred(self._proto))
        return self._inferred.get(name)

    def kinds(self) -> dict[str, int]:
        """Return the element types of tensors that are declared, or follow from those."""
        graph = self._proto.graph
        found = {name: tensor.data_type for name, tensor in self._stored.items()}
        for value in (*_inferred(self._proto), *graph.input, *graph.value_info, *graph.output):
            found.setdefault(value.name, value.type.tensor_type.elem_type)
        return found

    def known(self, name: str) -> bool:
        """True if the file holds this constant."""
        return name in self._stored

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a constant of the file."""
        return tuple(self._stored[name].dims)

    def vector(self, name: str) -> tuple[int, np.dtype[np.generic]] | None:
        """Return size and type of a constant with one axis, of floating-point numbers; None for any other."""
        tensor = self._stored.get(name)
        if tensor is None or len(tensor.dims) != 1 or tensor.data_type not in FLOATS or not tensor.dims[0]:
            return None
        return int(tensor.dims[0]), np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))

    def floating(self, name: str) -> np.dtype[np.generic] | None:
        """Return the type of a constant of floating-point numbers of 32 or 64 bits; None for any other."""
        kind = self._stored[name].data_type if name in self._stored else None
        return np.dtype(helper.tensor_dtype_to_np_dtype(kind)) if kind in FLOATS else None

    def small(self, name: str, most: int = SMALL) -> Array | None:
        """Return the value of a constant of a few numbers, `most`; None for any other."""
        tensor = self._stored.get(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL or np.prod(tensor.dims, dtype=float) > most:
            return None
        return numpy_helper.to_array(tensor)

    def number(self, name: str) -> float | None:
        """Return the value of a constant that is one number, of a floating-point or integer type."""
        value = self.small(name)
        return float(value.item()) if value is not None and value.size == 1 and value.dtype.kind in "fi" else None


def _sizes_of(values: Iterable[ValueInfoProto]) -> dict[str, tuple[int | None, ...]]:
    return {
        value.name: tuple(dim.dim_value or None for dim in value.type.tensor_type.shape.dim)
        for value in values
        if value.type.tensor_type.HasField("shape")
    }


def _inferred(proto: ModelProto) -> list[ValueInfoProto]:
    """What shape inference says of a model whose large constants are inputs: it needs their shapes alone, and what is declared behind them may be wrong."""
    skeleton = ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import)
    graph = skeleton.graph
    graph.node.extend(proto.graph.node)
    graph.input.extend(proto.graph.input)
    for value in proto.graph.output:
        graph.output.append(value)
        if value.type.HasField("tensor_type"):
            graph.output[-1].type.tensor_type.ClearField("shape")
    for tensor in proto.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL or np.prod(tensor.dims, dtype=float) > SMALL:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
        else:
            graph.initializer.append(tensor)
    try:
        graph = onnx.shape_inference.infer_shapes(skeleton, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return []
    return [*graph.input, *graph.value_info, *graph.output]
