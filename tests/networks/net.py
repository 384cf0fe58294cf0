"""A builder of small networks: each call adds a node and returns the name of its output."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_subprune._typing import Array

NEWEST = 26
"""The newest opset that both onnx and onnxruntime know."""


class Net:
    """Collects nodes and weights; `width` remembers the channels of a tensor so that layers need not be told."""

    def __init__(
        self, opset: int = 17, *, dtype: type[np.generic] | np.dtype[np.generic] = np.float32, seed: int = 0
    ) -> None:
        self.opset, self.dtype = opset, np.dtype(dtype)
        self.ir_version = 8 if opset < 21 else 10
        self.rng = np.random.default_rng(seed)
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, Array] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.functions: list[onnx.FunctionProto] = []
        self.domains = {"": opset}
        self.width: dict[str, int] = {}

    def fresh(self, stem: str) -> str:
        return f"{stem}_{len(self.nodes) + len(self.weights)}"

    def input(self, shape: Sequence[int | str], name: str = "x", kind: int | None = None) -> str:
        kind = helper.np_dtype_to_tensor_dtype(self.dtype) if kind is None else kind
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        if len(shape) > 1 and isinstance(shape[1], int):
            self.width[name] = shape[1]
        return name

    def output(self, name: str, rank: int | None = None, kind: int | None = None) -> None:
        kind = helper.np_dtype_to_tensor_dtype(self.dtype) if kind is None else kind
        self.outputs.append(helper.make_tensor_value_info(name, kind, None if rank is None else [None] * rank))

    def constant(self, value: Array | Sequence[int] | int, name: str | None = None) -> str:
        name = name or self.fresh("c")
        self.weights[name] = np.asarray(value)
        return name

    def weight(self, *shape: int, name: str | None = None, positive: bool = False) -> str:
        value = self.rng.standard_normal(shape) / np.sqrt(max(1, int(np.prod(shape[1:]))))
        value = np.abs(value) + 0.5 if positive else value
        return self.constant(value.astype(self.dtype), name or self.fresh("w"))

    def add(
        self, op: str, *inputs: str, outputs: int = 1, name: str | None = None, domain: str = "", **attributes: object
    ) -> list[str]:
        made = [f"{self.fresh(op.lower())}_{i}" if outputs > 1 else self.fresh(op.lower()) for i in range(outputs)]
        node = helper.make_node(op, list(inputs), made, name=name or made[0], domain=domain, **attributes)
        self.nodes.append(node)
        for out in made:
            if inputs and inputs[0] in self.width:
                self.width[out] = self.width[inputs[0]]
        return made

    def __call__(self, op: str, *inputs: str, **attributes: object) -> str:
        return self.add(op, *inputs, **attributes)[0]  # type: ignore[arg-type]

    def conv(  # noqa: PLR0913 - a Conv has that many settings, all but the first given by keyword
        self,
        x: str,
        out: int,
        k: int = 1,
        *,
        group: int = 1,
        bias: bool = True,
        rank: int = 2,
        stride: int = 1,
        name: str | None = None,
        w: str = "",
        b: str = "",
    ) -> str:
        weight = w or self.weight(out, self.width[x] // group, *(k,) * rank)
        args = [x, weight] + ([b or self.weight(out)] if bias else [])
        y = self(
            "Conv",
            *args,
            name=name,
            kernel_shape=[k] * rank,
            pads=[k // 2] * (2 * rank),
            group=group,
            strides=[stride] * rank,
        )
        self.width[y] = out
        return y

    def deconv(self, x: str, out: int, k: int = 2, *, group: int = 1, stride: int = 2, bias: bool = True) -> str:
        args = [x, self.weight(self.width[x], out // group, k, k)] + ([self.weight(out)] if bias else [])
        y = self("ConvTranspose", *args, group=group, strides=[stride] * 2, kernel_shape=[k, k])
        self.width[y] = out
        return y

    def bn(self, x: str, **attributes: object) -> str:
        c = self.width[x]
        stats = (self.weight(c, positive=True), self.weight(c), self.weight(c), self.weight(c, positive=True))
        return self("BatchNormalization", x, *stats, **attributes)

    def dense(self, x: str, inputs: int, out: int, *, bias: bool = True, **attributes: object) -> str:
        shape = (out, inputs) if attributes.get("transB", 1) else (inputs, out)
        attributes = {"transB": 1, **attributes}
        y = self(
            "Gemm",
            x,
            self.weight(*shape),
            *([self.weight(out)] if bias else [self.constant(np.zeros((), self.dtype))]),
            **attributes,
        )
        self.width[y] = out
        return y

    def linear(self, x: str, inputs: int, out: int, *, bias: bool = True) -> str:
        w = self.weight(inputs, out)
        y = self("MatMul", x, w)
        y = self("Add", y, self.weight(out)) if bias else y
        self.width[y] = out
        return y

    def relu(self, x: str) -> str:
        return self("Relu", x)

    def gap(self, x: str) -> str:
        return self("GlobalAveragePool", x)

    def ints(
        self, op: str, x: str, values: Sequence[int], attribute: str = "axes", since: int = 13, **attributes: object
    ) -> str:
        """An operator with a list that is an attribute before opset `since` and an input from there on."""
        if self.opset < since:
            return self(op, x, **{attribute: list(values)}, **attributes)
        return self(op, x, self.constant(np.array(values, np.int64)), **attributes)

    def squeeze(self, x: str, *axes: int) -> str:
        return self.ints("Squeeze", x, axes)

    def unsqueeze(self, x: str, *axes: int) -> str:
        return self.ints("Unsqueeze", x, axes)

    def reduce(self, op: str, x: str, *axes: int, keepdims: int = 1) -> str:
        return self.ints(op, x, axes, since=13 if op == "ReduceSum" else 18, keepdims=keepdims)

    def split(self, x: str, sizes: Sequence[int], axis: int = 1) -> list[str]:
        if self.opset < 13:
            parts = self.add("Split", x, outputs=len(sizes), axis=axis, split=list(sizes))
        else:
            parts = self.add("Split", x, self.constant(np.array(sizes, np.int64)), outputs=len(sizes), axis=axis)
        self.width.update(zip(parts, sizes, strict=True))
        return parts

    def slice(self, x: str, start: int, end: int, axis: int = 1, step: int = 1) -> str:
        if self.opset < 10:
            assert step == 1
            return self("Slice", x, starts=[start], ends=[end], axes=[axis])
        return self("Slice", x, *(self.constant(np.array([v], np.int64)) for v in (start, end, axis, step)))

    def pad(self, x: str, pads: Sequence[int]) -> str:
        return self.ints("Pad", x, pads, attribute="pads", since=11)

    def clip(self, x: str, low: float, high: float) -> str:
        if self.opset < 11:
            return self("Clip", x, min=float(low), max=float(high))
        return self("Clip", x, self.constant(np.array(low, self.dtype)), self.constant(np.array(high, self.dtype)))

    def reshape(self, x: str, *shape: int) -> str:
        return self("Reshape", x, self.constant(np.array(shape, np.int64)))

    def concat(self, *xs: str, axis: int = 1) -> str:
        y = self("Concat", *xs, axis=axis)
        if axis == 1 and all(x in self.width for x in xs):
            self.width[y] = sum(self.width[x] for x in xs)
        return y

    def dim(self, x: str, index: int) -> str:
        """The size of an axis at run time, as a tensor of one element."""
        size = self("Gather", self("Shape", x), self.constant(np.array(index, np.int64)), axis=0)
        return self.unsqueeze(size, 0)

    def head(self, x: str, classes: int = 5) -> str:
        """Pool, flatten, classify."""
        y = self.dense(self("Flatten", self.gap(x)), self.width[x], classes)
        self.output(y, 2)
        return y

    def model(self) -> ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            self.inputs,
            self.outputs,
            [numpy_helper.from_array(value, name) for name, value in self.weights.items()],
        )
        imports = [helper.make_opsetid(domain, version) for domain, version in self.domains.items()]
        model = helper.make_model(graph, opset_imports=imports, ir_version=self.ir_version, functions=self.functions)
        if self.ir_version < 4:
            graph_inputs = [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer]
            model.graph.input.extend(graph_inputs)
        return model


FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
