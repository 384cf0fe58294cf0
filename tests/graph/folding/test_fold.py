"""What scales or shifts channels goes into convolutions, and a HardSwish that is spelled out becomes two nodes: the outputs stay as they were."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from onnx_subprune import Channels, Macs, Params, Resources, prune
from onnx_subprune.graph.costs.costs import costs
from onnx_subprune.graph.folding.fold import foldable, folded
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.runtime.session import Session
from tests.networks.net import Net


def number(net, value, *shape):
    return net.constant(np.full(shape, value, net.dtype))


def a_channel(net, *shape):
    return net.constant((net.rng.standard_normal(shape) + 2.0).astype(net.dtype))


def affine(net, x, *shape):
    """One number for all channels, as PaddlePaddle has it, or one for each."""
    make = (lambda: a_channel(net, *shape)) if shape else (lambda: number(net, 0.7, 1))
    made = net("Add", net("Mul", x, make()), make())
    net.width[made] = net.width[x]
    return made


def hard_swish(net, x, *, product=True, clipped=None):
    """As exporters spell it: x clip(x + 3, 0, 6) / 6."""
    gate = clipped(net("Add", x, number(net, 3.0))) if clipped else net.clip(net("Add", x, number(net, 3.0)), 0.0, 6.0)
    made = net("Div", net("Mul", x, gate) if product else gate, number(net, 6.0))
    net.width[made] = net.width[x]
    return made


def start(opset=17, **settings):
    net = Net(opset, **settings)
    return net, net.conv(net.input(["n", 3, 9, 9]), 8, 3)


def ended(net, x):
    net.output(net.conv(x, 5, 1), 4)
    return net.model()


def behind(*shape):
    net, x = start()
    return ended(net, net.relu(affine(net, x, *shape)))


def divided():
    net, x = start()
    x = net("Div", net("Sub", x, a_channel(net, 8, 1, 1)), a_channel(net, 1, 8, 1, 1))
    made = net("Sub", number(net, 1.5, 1), x)
    net.width[made] = 8
    return ended(net, net.relu(made))


def without_bias():
    net = Net()
    return ended(net, net.relu(affine(net, net.conv(net.input(["n", 3, 9, 9]), 8, 3, bias=False))))


def transposed(group=1):
    net, x = start()
    x = net.deconv(x, 6, group=group, bias=False)
    return ended(net, net.relu(affine(net, net.bn(x), 6, 1, 1)))


def grouped():
    net, x = start()
    return ended(net, net.relu(affine(net, net.conv(net.relu(x), 8, 3, group=4), 8, 1, 1)))


def one_dimension():
    net = Net()
    x = net.conv(net.input(["n", 3, 12]), 8, 3, rank=1)
    net.output(net.conv(net.relu(affine(net, x, 8, 1)), 5, 1, rank=1), 3)
    return net.model()


def in_front(*shape, readers=1):
    net, x = start()
    x = affine(net, net.relu(x), *shape)
    made = [net.conv(x, 4, 1) for _ in range(readers)]
    net.output(made[0] if readers == 1 else net.concat(*made), 4)
    return net.model()


def in_front_of_a_padded_one(group=1):
    net, x = start()
    return ended(net, net.relu(net.conv(affine(net, net.relu(x)), 8, 3, group=group)))


def in_front_of_a_transposed_one():
    net, x = start()
    return ended(net, net.deconv(net("Mul", net.relu(x), a_channel(net, 8, 1, 1)), 6))


def swish(product=True):
    net, x = start()
    return ended(net, hard_swish(net, x, product=product))


def swish_by_a_product():
    net, x = start(10)
    gate = net("Mul", net.clip(net("Add", x, number(net, 3.0)), 0.0, 6.0), number(net, 1.0 / 6.0, 1))
    made = net("Mul", gate, x)
    net.width[made] = 8
    return ended(net, made)


def mobile():
    """A block of PP-LCNetV3: number after number behind convolutions and activations."""
    net, x = start()
    for _ in range(2):
        x = affine(net, hard_swish(net, affine(net, net.conv(x, net.width[x], 3, group=net.width[x]))))
        x = affine(net, hard_swish(net, affine(net, net.conv(x, 16, 1))))
    net.head(x)
    return net.model()


@pytest.mark.parametrize(
    ("model", "maps", "activations"),
    [
        (behind(), 2, 0),
        (behind(8, 1, 1), 2, 0),
        (behind(1, 8, 1, 1), 2, 0),
        (divided(), 3, 0),
        (without_bias(), 2, 0),
        (transposed(), 3, 0),
        (transposed(group=2), 3, 0),
        (grouped(), 2, 0),
        (one_dimension(), 2, 0),
        (in_front(), 2, 0),
        (in_front(8, 1, 1), 2, 0),
        (in_front(readers=2), 2, 0),
        (in_front_of_a_padded_one(), 1, 0),
        (in_front_of_a_padded_one(group=8), 1, 0),
        (in_front_of_a_transposed_one(), 1, 0),
        (swish(), 0, 1),
        (swish(product=False), 0, 1),
        (swish_by_a_product(), 0, 1),
        (mobile(), 13, 4),
    ],
)
def test_the_outputs_are_those_of_more_nodes(model, maps, activations):
    before = model.SerializeToString()
    found = folded(model)
    assert model.SerializeToString() == before
    assert (found.maps, found.activations) == (maps, activations)
    assert len(found.model.graph.node) == len(model.graph.node) - maps - 2 * activations
    onnx.checker.check_model(found.model, full_check=True)
    whole, shorter = (Session(item, threads=1) for item in (model, found.model))
    shape = [2 if not isinstance(size, int) else size for size in whole.inputs[0].shape]
    x = 3.0 * np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    (expected,), (value,) = whole.run({"x": x}).values(), shorter.run({"x": x}).values()
    np.testing.assert_allclose(value, expected, atol=2e-6 * np.abs(expected).max())
    assert len(foldable(model)) >= maps + 2 * activations
    assert folded(found.model).model is found.model


def read_twice():
    net, x = start()
    return ended(net, net("Add", affine(net, x), x))


def an_output():
    net, x = start()
    net.output(x, 4)
    return ended(net, net.relu(affine(net, x)))


def shared_weight():
    net, x = start()
    weight = net.weight(8, 8, 3, 3)
    for _ in range(2):
        x = net("Conv", x, weight, pads=[1, 1, 1, 1])
        net.width[x] = 8
        x = net.relu(affine(net, x))
    return ended(net, x)


def along_the_width():
    net, x = start()
    return ended(net, net.relu(net("Mul", x, a_channel(net, 9))))


def half():
    net, x = start(dtype=np.float16)
    return ended(net, net.relu(affine(net, x)))


def nearly_nothing():
    net, x = start()
    return ended(net, net.relu(net("Mul", x, number(net, 1e-7))))


def shifted_and_padded():
    net, x = start()
    x = net("Add", net.relu(x), number(net, 0.5))
    net.width[x] = 8
    return ended(net, net.relu(net.conv(x, 8, 3)))


def another_bound():
    net, x = start()
    return ended(net, net.relu(hard_swish(net, x, clipped=lambda y: net.clip(y, 0.0, 5.0))))


def from_below_zero():
    net, x = start()
    return ended(net, net.relu(hard_swish(net, x, clipped=lambda y: net.clip(y, -1.0, 6.0))))


@pytest.mark.parametrize(
    "model",
    [
        read_twice(),
        an_output(),
        shared_weight(),
        along_the_width(),
        half(),
        nearly_nothing(),
        shifted_and_padded(),
        another_bound(),
        from_below_zero(),
    ],
)
def test_what_is_something_else_is_left_alone(model):
    assert folded(model).model is model


def test_weights_that_lie_elsewhere_are_left_alone():
    model = behind()
    for tensor in model.graph.initializer:
        tensor.data_location = TensorProto.EXTERNAL
    assert folded(model).model is model


def test_a_pruned_model_has_fewer_nodes_and_says_so():
    model, data = mobile(), np.random.default_rng(0).standard_normal((48, 3, 9, 9)).astype(np.float32)
    found = prune(model, data, budget=Channels(0.5), resources=Resources(threads=1))
    assert len(found.model.graph.node) == len(model.graph.node) - 21
    assert any(
        "13 nodes that scale or shift channels" in note and "4 activations that were spelled out" in note
        for note in found.report.notes
    )
    assert {layer.name for layer in found.report.layers if not layer.after} == set()
    assert found.report.deviation < 1e-5


def test_a_bias_that_is_added_counts_among_the_parameters():
    net = Net()
    x = net.input(["n", 3, 9, 9])
    for _ in range(3):
        x = net.relu(affine(net, net.conv(x, 16, 3, bias=False)))
    net.head(x)
    data = np.random.default_rng(0).standard_normal((32, 3, 9, 9)).astype(np.float32)
    smaller = [
        prune(net.model(), data, budget=budget, resources=Resources(threads=1)) for budget in (Params(0.6), Macs(0.6))
    ]
    assert [sum(node.op_type == "Mul" for node in item.model.graph.node) for item in smaller] == [3, 0]
    assert smaller[0].report.params.ratio <= 0.6


def test_work_is_that_of_the_model_that_is_written():
    network = Network(mobile())
    graph = trace(network)
    price, plain = costs(network, graph, 16), costs(network, graph)
    assert plain.folded == 0.0
    shorter = Network(folded(network.given).model)
    assert costs(shorter, trace(shorter), 16).work({}) == pytest.approx(price.work({}), rel=0.1)
    assert price.folded > 0.3 * price.work({})
