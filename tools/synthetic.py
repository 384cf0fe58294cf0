"""Residual networks of any size with random weights that keep activations of order one, and smooth random images."""

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper


@dataclass(frozen=True)
class Residual:
    """depth: blocks of each stage; every stage halves the image and doubles the width. bottleneck: 1x1, 3x3, 1x1 to four times the width."""

    depth: tuple[int, ...]
    width: int
    size: int
    bottleneck: bool = False
    classes: int = 10

    def model(self) -> ModelProto:
        """Return the network: input (n, 3, size, size), logits (n, classes)."""
        builder, expand = _Builder(), 4 if self.bottleneck else 1
        large = self.size > 64
        x = builder.conv("input", (3, self.width, 7 if large else 3), "stem", stride=2 if large else 1)
        if large:
            x = builder.node("MaxPool", [x], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
        inputs = self.width
        for stage, count in enumerate(self.depth):
            width = self.width << stage
            for block in range(count):
                name, stride = f"stage{stage}.{block}", 2 if block == 0 and stage else 1
                outputs = width * expand
                if self.bottleneck:
                    y = builder.conv(x, (inputs, width, 1), f"{name}.reduce")
                    y = builder.conv(y, (width, width, 3), f"{name}.conv", stride=stride)
                    y = builder.conv(y, (width, outputs, 1), f"{name}.expand", gain=0.5, relu=False)
                else:
                    y = builder.conv(x, (inputs, width, 3), f"{name}.conv1", stride=stride)
                    y = builder.conv(y, (width, width, 3), f"{name}.conv2", gain=0.5, relu=False)
                if inputs != outputs or stride > 1:
                    x = builder.conv(x, (inputs, outputs, 1), f"{name}.skip", stride=stride, gain=1.0, relu=False)
                x, inputs = builder.node("Relu", [builder.node("Add", [y, x], name)], f"{name}.relu"), outputs
        x = builder.node("Flatten", [builder.node("GlobalAveragePool", [x], "mean")], "flat")
        weight = builder.constant("fc.weight", builder.random.standard_normal((inputs, self.classes)) / inputs**0.5)
        builder.node("Gemm", [x, weight, builder.constant("fc.bias", np.zeros(self.classes))], "logits")
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            builder.nodes,
            "residual",
            [value("input", TensorProto.FLOAT, ["n", 3, self.size, self.size])],
            [value("logits", TensorProto.FLOAT, ["n", self.classes])],
            builder.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)

    def images(self, count: int) -> NDArray[np.float32]:
        """Return (count, 3, size, size): noise of an eighth of the resolution, interpolated."""
        coarse = np.random.default_rng(1).standard_normal((count, 3, 8, 8)).astype(np.float32)
        place = np.linspace(0, 7, self.size)
        low = np.minimum(place.astype(int), 6)
        share = (place - low).astype(np.float32)
        rows = coarse[:, :, low] * (1 - share)[:, None] + coarse[:, :, low + 1] * share[:, None]
        return np.asarray(rows[..., low] * (1 - share) + rows[..., low + 1] * share)


class _Builder:
    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.nodes: list[NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[np.float64]) -> str:
        self.constants.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def node(self, operator: str, inputs: list[str], name: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def conv(
        self, x: str, shape: tuple[int, int, int], name: str, *, stride: int = 1, gain: float = 2.0, relu: bool = True
    ) -> str:
        inputs, outputs, k = shape
        scale = (gain / (inputs * k * k)) ** 0.5
        weight = self.constant(f"{name}.weight", self.random.standard_normal((outputs, inputs, k, k)) * scale)
        bias = self.constant(f"{name}.bias", 0.1 * self.random.standard_normal(outputs))
        made = self.node("Conv", [x, weight, bias], name, kernel_shape=[k, k], strides=[stride] * 2, pads=[k // 2] * 4)
        return self.node("Relu", [made], f"{name}.relu") if relu else made
