"""Einsum with a constant matrix is a matrix product; states of computed size have as many channels as what they are added to."""

import numpy as np
import pytest

from onnx_subprune import Channels, prune
from onnx_subprune.evaluation.gates import Gates
from onnx_subprune.evaluation.verification import law
from onnx_subprune.graph.costs.layers import layers
from onnx_subprune.graph.network import load
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.runtime.session import Session
from tests.networks.check import feeds_of, supports_of, weigh
from tests.networks.net import Net

PRODUCTS = [
    (("bnd,dm->bnm", (6, 12)), ("bnd,md->bnm", (4, 12))),
    (("...d,dm->...m", (6, 12)), ("b n d , m d -> b n m", (4, 12))),
]


def product(net: Net, x: str, equation: str, shape: tuple[int, int], *, first: bool = False) -> str:
    w = net.weight(*shape)
    return net("Einsum", *((w, x) if first else (x, w)), equation=equation)


@pytest.mark.parametrize("pair", PRODUCTS)
def test_an_einsum_with_a_constant_matrix_is_pruned_as_a_product(pair):
    net = Net()
    x = net("Add", product(net, net.input(("N", 5, 6)), *pair[0]), net.weight(12))
    net.output(product(net, net.relu(x), *pair[1]), 3)
    network = load(net.model())
    graph = trace(network)
    assert [group.width for group in graph.groups] == [12]
    supports = supports_of(graph, 0, share=0.5)
    assert law(network, graph, supports, feeds_of(network, 3, 1)) < 1e-5
    foretold, measured = weigh(network, graph, supports, apply(network, graph, Plan(supports=supports)))
    assert foretold == measured
    data = feeds_of(network, 32, 2)
    fitted, sliced = (
        prune(net.model(), data, budget=Channels(0.5), round_to=1, **more).model for more in ({}, {"refit": None})
    )
    reference, *found = (Session(model).run(data)[network.outputs[0]] for model in (net.model(), fitted, sliced))
    assert np.linalg.norm(found[0] - reference) < 0.9 * np.linalg.norm(found[1] - reference)


def test_the_matrix_may_come_first():
    net = Net()
    x = net.relu(product(net, net.input(("N", 5, 6)), "dm,bnd->bnm", (6, 12), first=True))
    net.output(product(net, x, "md,bnd->bnm", (4, 12), first=True), 3)
    network = load(net.model())
    graph = trace(network)
    assert [group.width for group in graph.groups] == [12]
    assert law(network, graph, supports_of(graph, 0), feeds_of(network, 3, 1)) < 1e-5


@pytest.mark.parametrize("pair", [("btgi,gih->btgh", "btgi,gih->btgh"), ("...gi,ghi->...gh", "ghi,btgi->btgh")])
def test_matrices_for_each_place_of_an_axis_lose_the_same_channels(pair):
    net, rng = Net(), np.random.default_rng(0)
    sizes = [net.constant(np.array([0, 0, 3, width])) for width in (4, 8)]
    x = net.relu(net("MatMul", net.input(("N", 7, 6)), net.weight(6, 12)))
    shape = (3, 4, 8) if "gih" in pair[0] else (3, 8, 4)
    x = net.relu(net("Einsum", net("Reshape", x, sizes[0]), net.weight(*shape), equation=pair[0]))
    x = net("Reshape", net("Reshape", x, net.constant(np.array([0, 0, 24]))), sizes[1])
    first = pair[1].startswith("ghi")
    w = net.constant(rng.standard_normal((3, 5, 8) if first else (3, 8, 5)).astype(np.float32))
    net.output(net("Einsum", *((w, x) if first else (x, w)), equation=pair[1]), 4)
    network = load(net.model())
    graph = trace(network)
    assert [group.width for group in graph.groups] == [4, 8]
    supports = supports_of(graph, 0, share=0.5)
    assert law(network, graph, supports, feeds_of(network, 3, 1)) < 1e-5
    foretold, measured = weigh(network, graph, supports, apply(network, graph, Plan(supports=supports)))
    assert foretold == measured
    data = feeds_of(network, 32, 2)
    settings = {"budget": Channels(0.5), "round_to": 1, "gates": Gates(accept_any=True)}
    fitted, sliced = (prune(net.model(), data, **settings, **more).model for more in ({}, {"refit": None}))
    reference, *found = (Session(model).run(data)[network.outputs[0]] for model in (net.model(), fitted, sliced))
    assert np.linalg.norm(found[0] - reference) < 0.9 * np.linalg.norm(found[1] - reference)


@pytest.mark.parametrize(
    ("equation", "shape"), [("btgi,tih->btgh", (7, 4, 5)), ("btgi,gi->btg", (3, 4)), ("btgi,igh->btgh", (4, 3, 5))]
)
def test_other_einsums_stay_with_a_reason(equation, shape):
    net = Net()
    x = net("Reshape", net("MatMul", net.input(("N", 7, 6)), net.weight(6, 12)), net.constant(np.array([0, 7, 3, 4])))
    y = net("Einsum", x, net.weight(*shape), equation=equation, name="mixed")
    net.output(y, 3 if equation.endswith("g") else 4)
    network = load(net.model())
    graph = trace(network)
    assert not graph.groups
    assert "mixed" in {item.node for item in layers(network, graph).staying}


def test_a_state_of_computed_size_is_as_wide_as_what_it_meets():
    net = Net()
    x = net.input(("N", 6))
    batch = net("Gather", net("Shape", x), net.constant(np.array([0])))
    state = net("ConstantOfShape", net("Concat", batch, net.constant(np.array([12])), axis=0))
    h = net("Tanh", net("Add", net("MatMul", x, net.weight(6, 12)), state))
    net.output(net("MatMul", h, net.weight(12, 4)), 2)
    network = load(net.model())
    graph = trace(network)
    assert [group.width for group in graph.groups] == [12]
    for batch_size in (1, 3):
        assert law(network, graph, supports_of(graph, 0, share=0.5), feeds_of(network, batch_size, 1)) < 1e-5


def test_a_layer_that_multiplies_by_the_weight_of_another_is_listed():
    net = Net()
    table = net.weight(20, 8, name="table")
    x = net("Gather", table, net.input(("N", 5), kind=7))
    x = net("Softmax", x, axis=-1)
    net.output(net("MatMul", x, net("Transpose", table, perm=[1, 0]), name="head"), 3)
    network = load(net.model())
    found = layers(network, trace(network))
    assert {item.node for item in found.staying} >= {"head"}
    assert found.params == 160


def test_sizes_that_are_spelled_out_in_a_target_do_not_count_where_other_values_depend_on_sizes():
    net = Net()
    x = net.input(("N", 5, 6))
    length = net("Squeeze", net.dim(x, 1))
    places = net("Range", net.constant(np.array(0)), length, net.constant(np.array(1)))
    places = net.unsqueeze(net("Cast", places, to=1), 1)
    y = net.linear(net("Add", x, places), 6, 12)
    shape = net("Shape", y)
    target = net.concat(net.slice(shape, 0, 1, 0), net.constant(np.array([-1])), net.slice(shape, 2, 3, 0), axis=0)
    net.output(net.linear(net.relu(net("Reshape", y, target)), 12, 4), 3)
    network = load(net.model())
    graph = trace(network)
    assert [group.width for group in graph.groups] == [12]
    assert law(network, graph, supports_of(graph, 0), feeds_of(network, 3, 1)) < 1e-5
