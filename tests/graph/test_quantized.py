"""Networks of which some layers are quantized: those stay as they are, with the reason, and the others are pruned."""

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from onnx_subprune import Channels, Gates, ModelError, Resources, compare, prune, trace
from onnx_subprune.graph.costs.count import parameters
from onnx_subprune.graph.costs.layers import layers
from onnx_subprune.graph.network import Network
from onnx_subprune.runtime.session import Session
from tests.networks.dead import doomed, killed
from tests.networks.net import Net

IMAGE = ("N", 3, 6, 6)


def scale(n, value=0.05):
    return n.constant(np.float32(value))


def zero(n, value=0, kind=np.uint8):
    return n.constant(np.array(value, kind))


def through(n, x):
    """Quantized and back."""
    y = n("DequantizeLinear", n("QuantizeLinear", x, scale(n), zero(n, 128)), scale(n), zero(n, 128))
    n.width[y] = n.width[x]
    return y


def integers(n, *shape, kind=np.int8):
    return n.constant(n.rng.integers(-90, 90, shape).astype(kind))


def body(n, x):
    """Two convolutions in floating point."""
    return n.relu(n.conv(n.relu(n.conv(x, 8, 3)), 6, 3))


def head(n, x):
    return n.dense(n("Flatten", n("GlobalAveragePool", x)), n.width[x], 5)


def at_the_end(n):
    n.output(n("QuantizeLinear", head(n, body(n, n.input(IMAGE))), scale(n), zero(n, 128)), 2, TensorProto.UINT8)


def at_the_start(n):
    x = n("DequantizeLinear", n.input(IMAGE, kind=TensorProto.UINT8), scale(n), zero(n, 99))
    n.width[x] = 3
    n.output(head(n, body(n, x)), 2)


def between(n):
    n.output(head(n, body(n, through(n, body(n, n.input(IMAGE))))), 2)


def weights_of_a_convolution(n):
    x = through(n, body(n, n.input(IMAGE)))
    w = n("DequantizeLinear", integers(n, 8, 6, 3, 3), n.constant(np.full(8, 0.01, np.float32)), axis=0)
    x = n("Conv", x, w, n("DequantizeLinear", integers(n, 8, kind=np.int32), scale(n, 0.001)), pads=[1] * 4)
    n.width[x] = 8
    n.output(head(n, body(n, n.relu(x))), 2)


def weights_that_are_quantized_as_it_runs(n):
    x = through(n, body(n, n.input(IMAGE)))
    w = n("QuantizeLinear", n.weight(8, 6, 3, 3), scale(n), zero(n, kind=np.int8))
    x = n("Conv", x, n("DequantizeLinear", w, scale(n), zero(n, kind=np.int8)), pads=[1] * 4)
    n.width[x] = 8
    n.output(head(n, body(n, n.relu(x))), 2)


def quantized_convolution(n):
    x = n("QuantizeLinear", body(n, n.input(IMAGE)), scale(n), zero(n))
    parts = x, scale(n), zero(n), integers(n, 8, 6, 1, 1), scale(n, 0.01), zero(n, kind=np.int8), scale(n), zero(n)
    x = n("DequantizeLinear", n("QLinearConv", *parts), scale(n), zero(n))
    n.width[x] = 8
    n.output(head(n, body(n, x)), 2)


def dynamic_product(n):
    x = n("Flatten", n("GlobalAveragePool", body(n, n.input(IMAGE))))
    a, s, z = n.add("DynamicQuantizeLinear", x, outputs=3)
    y = n("Cast", n("MatMulInteger", a, integers(n, 6, 5), z, zero(n, kind=np.int8)), to=1)
    n.output(n("Mul", y, n("Mul", s, scale(n, 0.01))), 2)


def four_bits(n):
    n.domains["com.microsoft"] = 1
    x = n.relu(n.dense(n.relu(n.dense(n.input(("N", 16)), 16, 12)), 12, 32))
    blocks, scales = n.rng.integers(0, 255, (8, 1, 16)).astype(np.uint8), np.full(8, 0.1, np.float32)
    sizes = {"K": 32, "N": 8, "bits": 4, "block_size": 32}
    n.output(n("MatMulNBits", x, n.constant(blocks), n.constant(scales), domain="com.microsoft", **sizes), 2)


NETWORKS = {
    at_the_end: ((6, 8), None),
    at_the_start: ((6, 8), None),
    between: ((6, 8, 8), None),
    weights_of_a_convolution: ((6, 8, 8), "Conv"),
    weights_that_are_quantized_as_it_runs: ((6, 8, 8), "Conv"),
    quantized_convolution: ((6, 8, 8), "QLinearConv"),
    dynamic_product: ((8,), "MatMulInteger"),
    four_bits: ((12,), "com.microsoft.MatMulNBits"),
}


def constants(model):
    """The initializers of integers, by name."""
    return {
        t.name: numpy_helper.to_array(t).tolist()
        for t in model.graph.initializer
        if t.data_type in (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32)
    }


@pytest.mark.parametrize("build", NETWORKS, ids=lambda build: build.__name__)
def test_layers_in_floating_point_are_pruned_and_quantized_ones_stay_with_a_reason(build):
    net = Net(seed=1)
    build(net)
    model, (widths, stays) = net.model(), NETWORKS[build]
    graph = trace(model)
    assert tuple(sorted(group.width for group in graph.groups)) == widths
    assert any("quantized" in item.reason for item in graph.pinned) or build is at_the_start
    network = Network(model)
    staying = {item.op: item.reason for item in layers(network, graph).staying if item.macs}
    assert stays is None or "its weights are quantized" in staying[stays]
    shape = [dim.dim_value or 16 for dim in network.inputs[0].type.tensor_type.shape.dim]
    values = np.random.default_rng(0).integers(-9, 9, shape)
    x = np.abs(values).astype(np.uint8) if build is at_the_start else (values / 9).astype(np.float32)
    half = killed(network, graph, doomed(graph), {"x": x})
    small = prune(half, x, budget=Channels(0.5), resources=Resources(threads=1), gates=Gates(accept_any=True)).model
    assert parameters(Network(small)) < parameters(network)
    assert constants(small) == constants(half)
    for ours, theirs in zip(Session(small).run({"x": x}).values(), Session(half).run({"x": x}).values(), strict=True):
        assert np.max(np.abs(ours.astype(float) - theirs.astype(float))) < 1e-4


def test_a_model_of_quantized_layers_alone_can_be_compared_but_not_pruned():
    found = []
    for quantized in (False, True):
        n = Net(seed=1)
        x, w = n.input(("N", 16)), n.constant(n.rng.integers(-90, 90, (16, 4)).astype(np.int8))
        floating = n.constant((n.weights[w] * np.float32(0.01)).astype(np.float32))
        n.output(n("MatMul", x, n("DequantizeLinear", w, scale(n, 0.01)) if quantized else floating, name="layer"), 2)
        model = n.model()
        model.graph.output[0].name = model.graph.node[-1].output[0] = "y"
        found.append(model)
    x = np.random.default_rng(0).standard_normal((16, 16)).astype(np.float32)
    assert compare(found[0], found[1], x).fidelity.outputs["y"].relative_error < 0.01  # kernels of onnxruntime round
    with pytest.raises(ModelError, match="prune the float model first"):
        prune(found[1], x, budget=Channels(0.5))
