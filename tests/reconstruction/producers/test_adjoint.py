"""Errors go back along a chain by its transposed derivative: that of differences of the part of the model itself."""

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_subprune.calibration.streaming.target import GRADIENT
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.reconstruction.producers.adjoint import adjoint
from onnx_subprune.reconstruction.producers.chains import chains
from onnx_subprune.runtime.session import Session
from tests.networks.net import Net


def spelled_out_gelu(net, x):
    cdf = net("Add", net("Erf", net("Div", x, net.constant(np.float32(1.4142)))), net.constant(np.float32(1.0)))
    return net("Mul", net("Mul", x, cdf), net.constant(np.float32(0.5)))


BETWEEN = {
    "nothing": lambda net, x: x,
    "relu": lambda net, x: net.relu(x),
    "batch normalization, relu": lambda net, x: net.relu(net.bn(x)),
    "clip": lambda net, x: net.clip(x, -0.5, 0.5),
    "silu": lambda net, x: net("Mul", x, net("Sigmoid", x)),
    "gelu in operators": spelled_out_gelu,
    "tanh": lambda net, x: net("Tanh", x),
    "relu, maximum pooling": lambda net, x: net("MaxPool", net.relu(x), kernel_shape=[2, 2], strides=[2, 2]),
    "maximum pooling with gaps": lambda net, x: net("MaxPool", x, kernel_shape=[2, 2], strides=[3, 3]),
    "average pooling": lambda net, x: net("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2]),
    "depthwise convolution": lambda net, x: net.relu(net.conv(net.relu(x), 6, 3, group=6, stride=2)),
    "transposition": lambda net, x: net("Transpose", x, perm=[0, 1, 3, 2]),
}


def conv(net, x, kernel, **attributes):
    return net("Conv", x, net.weight(5, 6, *kernel), **attributes)


READERS = {
    "no padding": lambda net, x: conv(net, x, (3, 2)),
    "dilated, uneven padding": lambda net, x: conv(net, x, (3, 2), pads=[4, 0, 1, 1], dilations=[2, 1]),
    "more padding than it reaches": lambda net, x: conv(net, x, (1, 3), pads=[1, 2, 0, 3]),
    "convolution": lambda net, x: net.conv(x, 5, 3),
    "stride 2": lambda net, x: net.conv(x, 5, 3, stride=2),
    "grouped convolution": lambda net, x: net.conv(x, 4, 3, group=2),
    "dense after pooling": lambda net, x: net.dense(net("Flatten", net.gap(x)), 6, 5),
}


def network_of(between, reader, size=9, opset=17):
    net = Net(opset=opset, seed=1)
    x = net.input(["n", 3, size, size])
    made = net.conv(x, 6, 3)
    passed = between(net, made)
    net.width[passed] = 6
    net.output(net.relu(reader(net, passed)))
    return Network(net.model())


def part(network, chain, weights):
    """What the reader puts out for an output of the producer, float64."""
    start, end = chain.producer.output.tensor, chain.reader.output.tensor
    chosen, needed = network.ancestors([end], [start])
    initializers = [tensor for name, tensor in network.initializers.items() if name in needed]
    for use, value in weights.items():
        name = network.node(use.node).input[use.slot]
        initializers = [t for t in initializers if t.name != name] + [onnx.numpy_helper.from_array(value, name)]
    ends = [[helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)] for name in (start, end)]
    graph = helper.make_graph([network.nodes[i] for i in chosen], "part", *ends, initializers)
    session = Session(helper.make_model(graph, opset_imports=network.proto.opset_import, ir_version=8))
    return lambda value: session.run({start: value}, [end])[end].astype(np.float64)


def compared(network, weights=None):
    """Inner products of a residual with the change of the reader's output, and of the gradient with that of the producer's."""
    contractions = sorted(trace(network).contractions, key=lambda item: network.position[item.node])
    found = chains(network, contractions)
    chain = found[contractions[-1].weight]
    forward = part(network, chain, weights or {})
    generator = np.random.default_rng(0)
    value = generator.standard_normal((2, 6, 9, 9)).astype(np.float32)
    residual = generator.standard_normal(forward(value).shape).astype(np.float32)
    back = adjoint(network, chain, weights or {})
    gradient = Session(onnx.ModelProto.FromString(back.model)).run(
        back.feeds({back.output: value}, residual), [GRADIENT]
    )[GRADIENT]
    assert gradient.shape == value.shape
    change = generator.standard_normal(value.shape).astype(np.float32) * 1e-4
    there = float(np.sum((forward(value + change) - forward(value - change)) / 2 * residual))
    back = float(np.sum(gradient.astype(np.float64) * change))
    scale = float(np.sqrt(np.sum(gradient.astype(np.float64) ** 2)) * 1e-4)
    return back, there, scale


@pytest.mark.parametrize("between", BETWEEN)
def test_the_gradient_is_the_transposed_derivative_of_what_lies_between(between):
    back, there, scale = compared(network_of(BETWEEN[between], READERS["convolution"]))
    assert back == pytest.approx(there, abs=0.02 * scale)


@pytest.mark.parametrize("reader", READERS)
def test_the_gradient_is_the_transposed_derivative_of_the_reader(reader):
    back, there, scale = compared(network_of(BETWEEN["relu"], READERS[reader]))
    assert back == pytest.approx(there, abs=0.02 * scale)


def test_the_weights_of_the_pruned_model_take_the_place_of_the_networks():
    network = network_of(BETWEEN["relu"], READERS["convolution"])
    reader = trace(network).contractions[-1]
    weights = {Use(reader.node, 1): -3 * network.array(reader.weight_tensor)}
    back, there, scale = compared(network, weights)
    assert back == pytest.approx(there, abs=0.02 * scale)
    assert back == pytest.approx(-3 * compared(network)[0], rel=1e-3)


def two_readers(net, x):
    net.output(net.conv(x, 2))
    return net.relu(x)


@pytest.mark.parametrize(
    "between",
    [
        two_readers,
        lambda net, x: net("Softmax", x, axis=1),
        lambda net, x: net("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2]),
        lambda net, x: net("Add", x, net.relu(x)) if net.output(x) is None else x,
    ],
    ids=["another reader", "softmax", "pooling with overlap", "an output on the way"],
)
def test_there_is_no_way_through_what_cannot_be_followed_back(between):
    network = network_of(between, READERS["convolution"])
    contractions = sorted(trace(network).contractions, key=lambda item: network.position[item.node])
    assert not any(chain.producer is contractions[0] for chain in chains(network, contractions).values())


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("reader", READERS)
def test_the_gradient_of_some_channels_is_that_of_a_residual_which_is_zero_in_the_others(between, reader):
    network = network_of(BETWEEN[between], READERS[reader])
    contractions = sorted(trace(network).contractions, key=lambda item: network.position[item.node])
    chain = chains(network, contractions)[contractions[-1].weight]
    generator = np.random.default_rng(0)
    value = generator.standard_normal((2, 6, 9, 9)).astype(np.float32)
    residual = generator.standard_normal(part(network, chain, {})(value).shape).astype(np.float32)
    outputs = None if chain.reader.groups > 1 else np.array([0, 3])
    if outputs is not None:
        residual[:, np.setdiff1d(np.arange(residual.shape[1]), outputs)] = 0.0
    channels = np.array([1, 2, 5])

    def sent(back, output, given):
        model = Session(onnx.ModelProto.FromString(back.model))
        return model.run(back.feeds({back.output: output}, given), [GRADIENT])[GRADIENT]

    whole = sent(adjoint(network, chain, {}), value, residual)
    narrow = adjoint(network, chain, {}, outputs, channels)
    given = residual if outputs is None else residual[:, outputs]
    for output in (value, value[:, channels]) if narrow.channels is not None else (value,):
        some = sent(narrow, output, given)
        assert np.any(some)
        np.testing.assert_allclose(some, whole[:, channels], rtol=1e-4, atol=1e-5 * np.abs(whole).max())


@pytest.mark.parametrize("opset", [7, 8, 9])
@pytest.mark.parametrize(
    ("between", "reader"),
    [
        ("relu, maximum pooling", "convolution"),
        ("average pooling", "convolution"),
        ("depthwise convolution", "convolution"),
        ("relu", "stride 2"),
        ("relu", "dense after pooling"),
    ],
)
def test_a_chain_of_an_old_model_has_operators_for_its_derivative_or_is_none(opset, between, reader):
    network = network_of(BETWEEN[between], READERS[reader], opset=opset)
    contractions = sorted(trace(network).contractions, key=lambda item: network.position[item.node])
    for chain in chains(network, contractions).values():
        Session(onnx.ModelProto.FromString(adjoint(network, chain, {}).model))
