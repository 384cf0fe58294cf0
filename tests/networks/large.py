"""Models whose weights lie in a side file, of any size: products and Relus one after the other."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.external_data_helper import set_external_data


def write_products(path: Path, depth: int, width: int) -> None:
    """Write `depth` products of `width` by `width` to `path`, their weights to the side file beside it, one at a time."""
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((width, width), dtype=np.float32) * np.float32((2 / width) ** 0.5)
    nodes, weights, x = [], [], "input"
    with path.with_name(path.name + ".data").open("wb") as file:
        for number in range(depth):
            tensor = TensorProto(name=f"w{number}", data_type=TensorProto.FLOAT, dims=[width, width], raw_data=b"")
            set_external_data(tensor, path.name + ".data", file.tell(), weight.nbytes)
            tensor.ClearField("raw_data")
            file.write(np.roll(weight, (97 * number, 31 * number), (0, 1)).tobytes())
            weights.append(tensor)
            nodes.append(helper.make_node("MatMul", [x, tensor.name], [f"m{number}"], name=f"m{number}"))
            nodes.append(helper.make_node("Relu", [f"m{number}"], [f"r{number}"], name=f"r{number}"))
            x = f"r{number}"
    nodes[-1].output[0] = "output"
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "products",
        [value("input", TensorProto.FLOAT, ["n", width])],
        [value("output", TensorProto.FLOAT, ["n", width])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
