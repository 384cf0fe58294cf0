"""How many channels a convolution of onnxruntime computes at once on this processor."""

from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from onnx_subprune.runtime.files import scratch

PLAIN = 8
"""Channels where onnxruntime has no layout of its own on a processor: what its matrix kernels compute at once."""


@cache
def convolution_block() -> int:
    """Return the block of onnxruntime's convolutions here: 16 or 8, `PLAIN` where it keeps the ordinary layout.

    A convolution to four channels is loaded and optimized: its weights are padded to a whole block of them.
    """
    kind, weight = TensorProto.FLOAT, numpy_helper.from_array(np.ones((4, 32, 3, 3), np.float32), "w")
    ports = [helper.make_tensor_value_info("x", kind, [1, 32, 8, 8])], [helper.make_tensor_value_info("y", kind, None)]
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "block", *ports, [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    with scratch() as folder:
        optimized = folder / "optimized.onnx"
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.optimized_model_filepath = str(optimized)
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found = onnx.load(optimized).graph
    blocked = any(node.domain == "com.microsoft.nchwc" for node in found.node)
    padded = max((tensor.dims[0] for tensor in found.initializer if len(tensor.dims) == 4), default=PLAIN)
    return int(padded) if blocked and padded >= PLAIN else PLAIN
