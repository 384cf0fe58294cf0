"""Times `trace` on chains of residual blocks, and how it grows with nodes and with channels.

    python tools/benchmark_trace.py [--repeat N]

Each row: nodes, channels, seconds for the two runs that observe shapes, seconds for the rest, all as the median of N.
"""

import argparse
import statistics
import sys
import time

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from onnx_subprune.graph.network import load
from onnx_subprune.graph.observing import observe
from onnx_subprune.graph.tracing.trace import trace


def residual_chain(blocks: int, width: int) -> ModelProto:
    """Return a chain of residual blocks (Conv, BatchNormalization, Relu, twice, and Add) on 8x8 images: 7 nodes a block."""
    rng = np.random.default_rng(0)
    weights, nodes = {}, []

    def weight(*shape: int) -> str:
        name = f"w{len(weights)}"
        weights[name] = np.abs(rng.standard_normal(shape, np.float32)) * np.float32(0.02)
        return name

    def add(op: str, *inputs: str, **attributes: object) -> str:
        name = f"{op}_{len(nodes)}"
        nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    x = add("Conv", "x", weight(width, 3, 1, 1))
    for _ in range(blocks):
        y = x
        for _ in range(2):
            y = add("Conv", y, weight(width, width, 1, 1))
            y = add("Relu", add("BatchNormalization", y, *(weight(width) for _ in range(4))))
        x = add("Add", x, y)
    x = add("Gemm", add("Flatten", add("GlobalAveragePool", x)), weight(width, 10))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", 1, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info(x, 1, ["N", 10])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def timed(blocks: int, width: int, repeat: int) -> tuple[int, float, float]:
    """Return the number of nodes, and the median seconds of the observation and of the rest."""
    network = load(residual_chain(blocks, width))
    seen, whole = [], []
    for _ in range(repeat):
        start = time.perf_counter()
        observe(network)
        seen.append(time.perf_counter() - start)
        start = time.perf_counter()
        trace(network)
        whole.append(time.perf_counter() - start)
    observed = statistics.median(seen)
    return len(network.nodes), observed, max(statistics.median(whole) - observed, 0.0)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3)
    repeat = parser.parse_args().repeat
    print(f"{'nodes':>6} {'channels':>9} {'observe s':>10} {'rest s':>8}")
    for blocks, width in ((10, 64), (21, 64), (42, 64), (84, 64), (168, 64), (42, 16), (42, 128), (42, 256), (42, 512)):
        nodes, observed, rest = timed(blocks, width, repeat)
        print(f"{nodes:>6} {width:>9} {observed:>10.3f} {rest:>8.3f}")


if __name__ == "__main__":
    sys.exit(main())
