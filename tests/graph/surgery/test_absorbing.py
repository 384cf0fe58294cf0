"""What residual branches that are gone added goes into biases in front of the sum, where there are such."""

import numpy as np
import pytest

from onnx_subprune.evaluation.verification import law
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.graph.tracing.branches import dispensable
from onnx_subprune.graph.tracing.trace import trace
from tests.networks.net import Net


def convolutions(sign):
    """Two blocks of a ResNet; what the branch of the second adds has this sign, 0 for both."""
    net = Net(seed=5)
    x = net.relu(net.conv(net.input(["n", 3, 8, 8]), 8, 3))
    for _ in range(2):
        y = net.conv(net.relu(net.conv(x, 6, 3)), 8, 3)
        bias = next(node.input[2] for node in net.nodes if node.output[0] == y)
        x = net.relu(net("Add", y, x))
    if sign:
        net.weights[bias] = sign * np.abs(net.weights[bias])
    net.head(x)
    return net


def products(*, bias=True):
    """Two feed-forward blocks on rows, and a head."""
    net = Net(seed=5)
    x = net.linear(net.input(["n", 4, 8]), 8, 8, bias=bias)
    for _ in range(2):
        x = net("Add", net.linear(net.relu(net.linear(x, 8, 6)), 6, 8), x)
    net.output(net.linear(x, 8, 3), 3)
    return net


def without(net, picked):
    """The operators that are left without the branches of these numbers, and how far the model is from the masked one."""
    network = Network(net.model())
    graph = trace(network)
    groups = [group.name for group in graph.groups if group.name in dispensable(network, graph)]
    supports = {groups[number]: [] for number in picked}
    shape = [2 if not dim.dim_value else dim.dim_value for dim in network.inputs[0].type.tensor_type.shape.dim]
    feeds = {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    small = apply(network, graph, Plan(supports=supports))
    return [node.op_type for node in small.graph.node], law(network, graph, supports, feeds)


HEAD = ["GlobalAveragePool", "Flatten", "Gemm"]
BLOCK = ["Conv", "Relu", "Conv", "Add", "Relu"]
LINEAR = ["MatMul", "Add"]


@pytest.mark.parametrize(
    ("net", "picked", "operators"),
    [
        (convolutions(-1), [1], ["Conv", "Relu", *BLOCK, *HEAD]),
        (convolutions(1), [1], ["Conv", "Relu", *BLOCK, "BatchNormalization", "Relu", *HEAD]),
        (convolutions(0), [1], ["Conv", "Relu", *BLOCK, "BatchNormalization", "Relu", *HEAD]),
        (convolutions(-1), [0], ["Conv", "Relu", "BatchNormalization", *(BLOCK[-1:] + BLOCK), *HEAD]),
        (products(), [1], [*LINEAR, *LINEAR, "Relu", *LINEAR, "Add", *LINEAR]),
        (products(), [0, 1], LINEAR + LINEAR),
        (products(bias=False), [0, 1], ["MatMul", "Add", *LINEAR]),
    ],
)
def test_a_number_a_channel_goes_into_a_bias_in_front(net, picked, operators):
    found, deviation = without(net, picked)
    assert found == operators
    assert deviation < 1e-6


def test_what_somebody_else_reads_keeps_its_values():
    """The first block's output is an output of the model too: no bias in front of it may change."""
    net = products()
    first = [node.output[0] for node in net.nodes if node.op_type == "Add"][3]
    net.output(first, 3)
    found, deviation = without(net, [1])
    assert found.count("Add") == 6
    assert deviation < 1e-6
