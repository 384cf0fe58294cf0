"""What onnxruntime fuses in the original it fuses in the pruned model too, and no nodes are left behind."""

from collections import Counter

import numpy as np
import onnx
import pytest

from onnx_subprune.graph.network import Network
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.budgets.latency import first_channels
from onnx_subprune.runtime.observing import observe_shapes
from onnx_subprune.runtime.profiling import node_times
from onnx_subprune.runtime.session import Runnable, Session
from tests.networks.net import Net

X = {"x": np.random.default_rng(0).standard_normal((2, 5, 24)).astype(np.float32)}


PLUMBING = ("Add", "Concat", "Gather", "LayerNormalization", "Reshape", "Shape", "Slice", "Transpose", "Unsqueeze")
"""Operators that fusion takes away, or that move sizes about."""


def blocks(*, allowzero=0, flat=False, tail=None):
    """Two blocks of a transformer whose Reshapes compute batch and length; `flat` works on (batch x length, width) inside, as exporters of GPT do."""
    net = Net(opset=17)
    x = stream = net.input(["batch", "length", 24])
    options = {"allowzero": 1} if allowzero else {}
    for _ in range(2):
        batch, length = net.dim(x, 0), net.dim(x, 1)

        def target(*sizes, first=batch, second=length):
            constants = [net.constant(np.array([size], np.int64)) for size in sizes]
            return net("Concat", first, second, *constants, axis=0)

        def shaped(source, *sizes, target=target):
            return net("Reshape", source, target(*sizes), **options)

        y = net.linear(net("Reshape", stream, net.constant([-1, 24])) if flat else stream, 24, 24)
        y = net("Transpose", shaped(y, 4, 6 if tail is None else tail), perm=[0, 2, 1, 3])
        y = shaped(net("Transpose", net("Sigmoid", y), perm=[0, 2, 1, 3]), 24 if tail is None else tail)
        y = net.linear(y, 24, 24)
        y = net.linear(net.relu(net.linear(y, 24, 32)), 32, 24)
        scale, shift = net.weight(24, positive=True), net.weight(24)
        stream = net("LayerNormalization", net("Add", y, stream), scale, shift, axis=-1)
    net.output(stream, 3)
    return net.model()


def ops(model):
    return Counter(item.op for item in node_times(Runnable(model), X, runs=1, threads=1))


@pytest.mark.parametrize(
    "options", [{}, {"allowzero": 1}, {"tail": -1}, {"tail": -1, "allowzero": 1}, {"flat": True}], ids=str
)
def test_computed_targets_leave_no_nodes_behind_and_what_was_fused_stays_so(options):
    model = blocks(**options)
    network = Network(model)
    graph = trace(network)
    assert len(graph.groups) >= 4
    plan = Plan(supports={group.name: first_channels(group, group.width // 2) for group in graph.groups})
    small = apply(network, graph, plan)
    before, after = ops(model), ops(small)
    assert all(after[op] <= before[op] for op in PLUMBING)
    assert sum(after.values()) <= sum(before.values())
    for shape in ((1, 5, 24), (3, 2, 24)):
        x = {"x": np.ones(shape, np.float32)}
        (found,) = Session(small).run(x).values()
        assert found.shape == shape


def test_what_keeps_its_shape_keeps_its_declaration_and_what_is_declared_is_true():
    model = onnx.shape_inference.infer_shapes(blocks(), data_prop=True)
    declared = {value.name for value in model.graph.value_info}
    network = Network(model)
    graph = trace(network)
    supports = {group.name: first_channels(group, group.width // 2) for group in graph.groups}
    small = apply(network, graph, Plan(supports=supports))
    shorter = {part.axis.tensor for group in graph.groups for part in group.slices}
    left = {value.name: value.type.tensor_type.shape.dim for value in small.graph.value_info}
    made = {name for node in small.graph.node for name in node.output}
    lost = declared & made - shorter - set(left) - set(network.outputs)
    assert all(graph.observation.values.get(name) is not None for name in lost)  # sizes
    assert len(left) > 5
    for name, seen in observe_shapes(small, X).items():
        for dim, size in zip(left.get(name, ()), seen.shape, strict=False):
            assert not dim.HasField("dim_value") or dim.dim_value == size
