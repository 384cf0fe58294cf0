"""Every kind of contraction as a one-node model, with its expected behaviour left to the operator itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx

from onnx_subprune._typing import Float32
from onnx_subprune.graph.contractions.kernel import Kernel
from onnx_subprune.graph.contractions.reading import kernel_at
from onnx_subprune.runtime.session import Session


@dataclass(frozen=True)
class Case:
    """`operator` applied to an input of shape `x` with weights of shape `weight`."""

    operator: str
    x: tuple[int, ...]
    weight: tuple[int, ...]
    attributes: Mapping[str, object] = field(default_factory=dict)
    bias: tuple[int, ...] | None = None
    slot: int = 1

    def __str__(self) -> str:
        words = [f"{name}={value}" for name, value in self.attributes.items()]
        return " ".join(
            [self.operator, f"x{self.x}", f"w{self.weight}", *words, *(["left"] if self.slot == 0 else [])]
        ).replace(", ", ",")

    @property
    def node(self) -> onnx.NodeProto:
        names = ["x", "w"] if self.slot else ["w", "x"]
        return onnx.helper.make_node(
            self.operator, [*names, *(["b"] if self.bias else [])], ["y"], name="node", **self.attributes
        )

    @property
    def contraction(self) -> Kernel:
        return kernel_at(self.node, self.weight, self.slot)

    def data(self, seed: int = 0) -> tuple[Float32, Float32, Float32 | None]:
        generator = np.random.default_rng(seed)
        x, w = (generator.standard_normal(shape).astype(np.float32) for shape in (self.x, self.weight))
        return x, w, None if self.bias is None else generator.standard_normal(self.bias).astype(np.float32)

    def run(self, x: Float32, w: Float32, b: Float32 | None) -> Float32:
        """Return what onnxruntime computes."""
        value = onnx.helper.make_tensor_value_info
        constants = [
            onnx.numpy_helper.from_array(w, "w"),
            *([] if b is None else [onnx.numpy_helper.from_array(b, "b")]),
        ]
        graph = onnx.helper.make_graph([self.node], "g", [value("x", 1, x.shape)], [value("y", 1, None)], constants)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
        return Session(model, optimize=False, threads=1).run({"x": x})["y"]  # type: ignore[return-value]


CASES = [
    Case("Conv", (3, 4, 9), (6, 4, 3), {"pads": [1, 1]}, (6,)),
    Case("Conv", (2, 3, 11), (4, 3, 4), {"strides": [3], "pads": [2, 0], "dilations": [2]}, (4,)),
    Case("Conv", (2, 3, 5), (4, 3, 3), {"pads": [4, 4]}),
    Case("Conv", (2, 3, 30), (4, 3, 17), {"pads": [8, 8]}),
    Case(
        "Conv", (2, 3, 3), (4, 3, 2), {"dilations": [10], "pads": [5, 5]}
    ),  # every tap reads zeros beside the image alone
    Case("Conv", (3, 4, 6, 7), (5, 4, 3, 3), {"pads": [1, 1, 1, 1]}, (5,)),
    Case("Conv", (2, 3, 6, 7), (4, 3, 3, 3), {}, (4,)),
    Case("Conv", (2, 3, 8, 7), (4, 3, 5, 5), {"pads": [2, 2, 2, 2]}),
    Case("Conv", (2, 3, 12, 9), (4, 3, 5, 5), {}),
    Case("Conv", (2, 3, 5, 4), (4, 3, 3, 3), {"pads": [2, 2, 2, 2]}),
    Case("Conv", (2, 3, 5, 4), (4, 3, 3, 3), {"pads": [0, 3, 1, 2]}),
    Case("Conv", (2, 3, 4, 4), (4, 3, 2, 2), {"auto_pad": "SAME_UPPER"}),
    Case("Conv", (2, 3, 4, 4), (4, 3, 2, 2), {"auto_pad": "SAME_LOWER"}),
    Case("Conv", (2, 3, 7, 8), (4, 3, 4, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 3]}, (4,)),
    Case("Conv", (2, 3, 7, 8), (4, 3, 4, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    Case("Conv", (2, 3, 7, 8), (4, 3, 3, 3), {"auto_pad": "VALID"}),
    Case("Conv", (2, 3, 9, 8), (4, 3, 3, 3), {"dilations": [2, 3], "pads": [2, 3, 2, 3]}),
    Case("Conv", (2, 3, 9, 8), (4, 3, 3, 1), {"dilations": [2, 1], "pads": [2, 0, 2, 0]}),
    Case("Conv", (2, 3, 2, 2), (4, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
    Case("Conv", (2, 3, 1, 1), (4, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
    Case("Conv", (2, 3, 9, 8), (4, 3, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}, (4,)),
    Case("Conv", (3, 8, 5, 4), (6, 8, 1, 1), {}, (6,)),
    Case("Conv", (3, 4, 17, 16), (6, 4, 1, 1), {}),
    Case("Conv", (3, 8, 5, 4), (6, 8, 1, 1), {"strides": [2, 2]}),
    Case("Conv", (3, 8, 5, 4), (6, 8, 1, 1), {"pads": [1, 0, 0, 1]}),
    Case("Conv", (2, 6, 6, 5), (4, 3, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}, (4,)),
    Case("Conv", (2, 6, 6, 5), (9, 2, 1, 1), {"group": 3}, (9,)),
    Case("Conv", (2, 6, 6, 5), (6, 1, 3, 3), {"group": 6, "pads": [1, 1, 1, 1]}, (6,)),
    Case("Conv", (2, 4, 6, 5), (8, 1, 3, 3), {"group": 4, "strides": [2, 2], "pads": [1, 1, 1, 1]}, (8,)),
    Case("Conv", (2, 4, 6, 5), (8, 1, 3, 3), {"group": 4, "pads": [1, 1, 1, 1]}),
    Case("Conv", (2, 2, 4, 5, 4), (3, 2, 3, 3, 3), {"pads": [1] * 6}, (3,)),
    Case("Conv", (2, 2, 4, 5, 4), (3, 2, 2, 3, 1), {"strides": [1, 2, 1]}),
    Case("ConvTranspose", (2, 3, 7), (3, 4, 3), {"strides": [2], "pads": [1, 1], "output_padding": [1]}, (4,)),
    Case("ConvTranspose", (2, 3, 7), (3, 4, 3), {}),
    Case(
        "ConvTranspose",
        (2, 3, 4, 5),
        (3, 4, 3, 3),
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
        (4,),
    ),
    Case("ConvTranspose", (2, 3, 4, 5), (3, 4, 2, 2), {"strides": [2, 2]}),
    Case("ConvTranspose", (2, 3, 4, 5), (3, 4, 3, 2), {"strides": [1, 3], "dilations": [2, 1], "pads": [0, 1, 1, 0]}),
    Case("ConvTranspose", (2, 3, 4, 5), (3, 4, 3, 3), {"pads": [1, 1, 1, 1]}, (4,)),
    Case("ConvTranspose", (2, 4, 4, 5), (4, 3, 3, 3), {"group": 2, "strides": [2, 1]}, (6,)),
    Case("ConvTranspose", (2, 4, 4, 5), (4, 1, 3, 3), {"group": 4, "strides": [2, 2]}, (4,)),
    Case("ConvTranspose", (2, 3, 4, 5), (3, 4, 4, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    Case("ConvTranspose", (2, 3, 4, 5), (3, 4, 4, 3), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    Case("ConvTranspose", (2, 3, 4, 5), (3, 4, 4, 3), {"strides": [2, 2], "output_shape": [9, 10]}),
    Case("Gemm", (7, 5), (5, 4), {}, (4,)),
    Case("Gemm", (7, 5), (4, 5), {"transB": 1, "alpha": 0.5, "beta": 2.0}, (4,)),
    Case("Gemm", (5, 7), (5, 4), {"transA": 1, "beta": 0.0}, (4,)),
    Case("Gemm", (5, 7), (4, 5), {"transA": 1, "transB": 1, "alpha": -2.0}),
    Case("MatMul", (7, 5), (5, 4)),
    Case("MatMul", (2, 3, 7, 5), (5, 4)),
    Case("MatMul", (5,), (5, 4)),
    Case("MatMul", (5, 7), (4, 5), slot=0),
    Case("MatMul", (2, 5, 7), (4, 5), slot=0),
    Case("MatMul", (2, 3, 5, 7), (4, 5), slot=0),
]
