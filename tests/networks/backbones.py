"""The skeleton networks that the `onnx` package carries for its backend tests, with weights drawn at random."""

from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"

DENSE = 1536
"""Width of the hidden dense layers of AlexNet, VGG and ZFNet, which had 4096 units and most of the time."""


def backbone(name: str, seed: int = 0) -> ModelProto:
    """Return the network `name`; its last Softmax is left out, so that outputs do not saturate."""
    model = onnx.load(FOLDER / f"light_{name}.onnx")
    rng = np.random.default_rng(seed)
    graph = model.graph
    known = {tensor.name: tensor for tensor in graph.initializer}
    vectors = {node.input[i]: i for node in graph.node if node.op_type == "BatchNormalization" for i in range(1, 5)}
    nodes = []
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            shape = tuple(
                min(size, DENSE) if size == 4096 else size
                for size in numpy_helper.to_array(known[node.input[0]]).tolist()
            )
            value = _draw(rng, shape, vectors.get(node.output[0]))
            graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
        elif node.op_type == "Softmax" and node.output[0] == graph.output[0].name:
            graph.output[0].name = node.input[0]
        else:
            nodes.append(node)
    model.ir_version = 8  # initializers need not be inputs
    del graph.value_info[:]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _draw(rng: np.random.Generator, shape: tuple[int, ...], vector: int | None) -> np.ndarray:
    """Weights that keep the scale of activations; scales and variances (slots 1 and 4 of a normalisation) near one."""
    value = rng.standard_normal(shape, np.float32)
    if vector in (1, 4):
        return np.abs(value) * np.float32(0.2) + np.float32(0.9)
    return value * np.float32(np.sqrt(2 / max(1, np.prod(shape[1:]))))
