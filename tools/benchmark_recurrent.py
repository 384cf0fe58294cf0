"""Latency of a recurrent layer with fewer units against its multiply-accumulates, one thread of onnxruntime, both models in turns.

    python tools/benchmark_recurrent.py --units 256 --features 256 --steps 100 --shares 0.75 0.5 0.25

The recurrent layer and a dense one of eight outputs that reads it; units are cut by the surgery, no data is needed. Prints the ratio of the
milliseconds, the median over rounds that ran both models back to back, beside those of multiply-accumulates and of the work that budgets count, which
has the activations of units as well, and what the first is of each of these.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parents[1]))

from onnx_subprune.evaluation.timing import latency_ratio
from onnx_subprune.graph.contractions.recurrent import GATES
from onnx_subprune.graph.costs.costs import costs
from onnx_subprune.graph.network import load
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.runtime.blocks import convolution_block
from onnx_subprune.runtime.session import Session


def network(op: str, shape: tuple[int, int, int], units: int, directions: int) -> onnx.ModelProto:
    """Return a model with one recurrent layer of `op` that reads (steps, batch, features), `shape`, and is read by a dense layer of 8."""
    steps, batch, features = shape
    rng, rows = np.random.default_rng(0), GATES[op] * units

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        values = rng.standard_normal(shape) / np.sqrt(shape[-1])
        return numpy_helper.from_array(values.astype(np.float32), name)

    weights = [
        weight("w", directions, rows, features),
        weight("r", directions, rows, units),
        weight("b", directions, 2 * rows),
        weight("dense", directions * units, 8),
        numpy_helper.from_array(np.array([0, 0, directions * units]), "shape"),
        numpy_helper.from_array(np.array([1]), "one"),
    ]
    options = {"hidden_size": units, "direction": "bidirectional" if directions == 2 else "forward"}
    if op == "GRU":
        options["linear_before_reset"] = 1
    nodes = [helper.make_node(op, ["x", "w", "r", "b"], ["y"], name="layer", **options)]
    if directions == 1:
        nodes.append(helper.make_node("Squeeze", ["y", "one"], ["flat"]))
    else:
        nodes.append(helper.make_node("Transpose", ["y"], ["t"], perm=[0, 2, 1, 3]))
        nodes.append(helper.make_node("Reshape", ["t", "shape"], ["flat"]))
    nodes.append(helper.make_node("MatMul", ["flat", "dense"], ["out"]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [steps, batch, features])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [steps, batch, 8])
    graph = helper.make_graph(nodes, "recurrent", [x], [out], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def ratios(
    model: onnx.ModelProto, share: float, feeds: dict[str, np.ndarray], seconds: float
) -> tuple[float, float, float]:
    """Return latency, multiply-accumulates and work of the model with this share of its units, of those of the whole."""
    whole = load(model)
    graph = trace(whole)
    (group,) = graph.groups
    width = int(share * group.width)
    small = apply(whole, graph, Plan(supports={group.name: tuple(range(width))}))
    price, widths = costs(whole, graph, convolution_block()), {group.name: width}
    before, after = (Session(item, threads=1) for item in (model, small))
    time = latency_ratio(before, after, feeds, seconds=seconds)
    return time, price.macs(widths) / price.macs({}), price.work(widths) / price.work({})


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each operator at each share and batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ops", nargs="+", default=["LSTM", "GRU", "RNN"], choices=list(GATES))
    parser.add_argument("--features", type=int, default=256)
    parser.add_argument("--units", type=int, default=256)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--directions", type=int, default=1, choices=(1, 2))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.75, 0.5, 0.25])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each number")
    options = parser.parse_args(arguments)
    titles = ("layer", "batch", "units left", "latency", "MACs", "work", "latency / MACs", "latency / work")
    print(f"| {' | '.join(titles)} |", "| --- " * len(titles) + "|", sep="\n")
    for op in options.ops:
        for batch in options.batches:
            shape = (options.steps, batch, options.features)
            model = network(op, shape, options.units, options.directions)
            feeds = {"x": np.random.default_rng(1).standard_normal(shape).astype(np.float32)}
            for share in options.shares:
                time, macs, work = ratios(model, share, feeds, options.seconds)
                numbers = " | ".join(f"{item:.2f}" for item in (time, macs, work, time / macs, time / work))
                print(f"| {op} | {batch} | {share:.0%} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
