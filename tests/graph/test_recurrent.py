"""Recurrent layers: every combination of what they may have is cut exactly, and what holds their width is said."""

from itertools import product

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from onnx_subprune.evaluation.verification import law
from onnx_subprune.graph.contractions.recurrent import GATES
from onnx_subprune.graph.costs.costs import costs
from onnx_subprune.graph.network import load
from onnx_subprune.graph.operators import attribute
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.runtime.session import Session
from tests.networks.check import feeds_of, supports_of, weigh
from tests.networks.net import Net
from tests.networks.recurrent import STATES, Recurrent

EVERY = [
    pytest.param(Recurrent(op, direction, states=states, reset=reset), id=f"{op}-{direction}-{states}-{reset}")
    for op, direction, states, reset in product(
        ("LSTM", "GRU", "RNN"), ("forward", "reverse", "bidirectional"), STATES, (0, 1)
    )
    if op == "GRU" or not reset
]
MORE = [
    pytest.param(Recurrent("LSTM", "bidirectional", states="given", peepholes=True), id="peepholes"),
    pytest.param(Recurrent("LSTM", "bidirectional", bias=False), id="without-bias"),
    pytest.param(Recurrent("LSTM", "bidirectional", bias=False, peepholes=True), id="peepholes-alone"),
    pytest.param(Recurrent("LSTM", extra={"clip": 0.3, "input_forget": 1}), id="clip-and-coupled-gates"),
    pytest.param(Recurrent("GRU", extra={"activations": ["HardSigmoid", "Softsign"]}), id="activations"),
    pytest.param(Recurrent("RNN", "bidirectional", extra={"activations": ["Relu", "Sigmoid"]}), id="one-a-direction"),
    pytest.param(Recurrent("LSTM", "bidirectional", lengths=True), id="lengths-lstm"),
    pytest.param(Recurrent("GRU", "bidirectional", lengths=True), id="lengths-gru"),
    pytest.param(Recurrent("RNN", "reverse", lengths=True), id="lengths-rnn"),
    pytest.param(Recurrent("LSTM", last=True), id="last-state-alone"),
    pytest.param(Recurrent("GRU", "bidirectional", last=True), id="last-states-alone"),
    pytest.param(Recurrent("LSTM", "bidirectional", states="expanded", peepholes=True, lengths=True), id="all-at-once"),
    *(
        pytest.param(Recurrent(op, "bidirectional", joined="Concat"), id=f"concat-{op}")
        for op in ("LSTM", "GRU", "RNN")
    ),
]


@pytest.mark.parametrize("case", [*EVERY, *MORE])
def test_units_and_features_are_cut_and_slicing_equals_masking(case: Recurrent):
    network = load(case.model())
    graph = trace(network)
    assert sorted(group.width for group in graph.groups) == [case.units, case.features]
    for seed in (0, 1):
        supports = supports_of(graph, seed)
        assert law(network, graph, supports, feeds_of(network, 3, seed)) < 1e-5
        small = apply(network, graph, Plan(supports=supports))
        onnx.checker.check_model(small, full_check=True)
        foretold, measured = weigh(network, graph, supports, small)
        assert foretold == measured
        (layer,) = (node for node in small.graph.node if node.op_type == case.op)
        assert attribute(layer, "hidden_size") in map(len, supports.values())


@pytest.mark.parametrize(
    ("direction", "states"), [("forward", "expanded"), ("bidirectional", "given"), ("reverse", "none")]
)
@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_layers_whose_batch_comes_first_are_loaded_as_the_standard_says_and_cut(op: str, direction: str, states: str):
    """onnxruntime does not run them; the reference evaluator of onnx does."""
    for last in (False, True):
        model = Recurrent(op, direction, states=states, batch_first=True, last=last).model()
        network = load(model)
        feeds = feeds_of(network, 3, 0)
        (found,) = Session(network.given).run(feeds).values()
        assert np.allclose(found, ReferenceEvaluator(model).run(None, feeds)[0], atol=1e-5)
        graph = trace(network)
        assert sorted(group.width for group in graph.groups) == [5, 6]
        assert law(network, graph, supports_of(graph, 0), feeds) < 1e-5


@pytest.mark.parametrize(("which", "reason"), [("input", "'h' is an input"), ("output", "is an output of the model")])
def test_states_that_are_inputs_or_outputs_keep_their_width_and_features_go(which: str, reason: str):
    n = Net(17)
    x = n("Transpose", n.relu(n.linear(n.input(("N", 4, 3)), 3, 6)), perm=[1, 0, 2])
    h = n.input((1, "N", 5), "h") if which == "input" else ""
    made = n.add("GRU", x, n.weight(1, 15, 6), n.weight(1, 15, 5), "", "", h, outputs=2, hidden_size=5)
    n.output(n.linear(n.squeeze(made[0], 1), 5, 2), 3)
    if which == "output":
        n.output(made[1], 3)
    graph = trace(n.model())
    assert [group.width for group in graph.groups] == [6]
    assert any(reason in pinned.reason for pinned in graph.pinned)


def test_weights_that_are_computed_pin_all_around():
    n = Net(17)
    x = n("Transpose", n.relu(n.linear(n.input(("N", 4, 3)), 3, 6)), perm=[1, 0, 2])
    w = n("Add", n.weight(1, 15, 6), n.input((1,), "s"))
    y, *_ = n.add("GRU", x, w, n.weight(1, 15, 5), outputs=2, hidden_size=5)
    n.output(n.linear(n.squeeze(y, 1), 5, 2), 3)
    graph = trace(n.model())
    assert not graph.groups
    assert any("its weights are computed at run time" in pinned.reason for pinned in graph.pinned)


def test_states_that_two_layers_share_by_accident_are_told_apart():
    n = Net(17)
    x = n("Transpose", n.relu(n.linear(n.input((2, 4, 3)), 3, 6)), perm=[1, 0, 2])
    zero = n.constant(np.zeros((1, 2, 5), np.float32))
    for inputs in (6, 5):
        args = (n.weight(1, 20, inputs), n.weight(1, 20, 5), n.weight(1, 40), "", zero, zero)
        x = n.squeeze(n.add("LSTM", x, *args, outputs=3, hidden_size=5)[0], 1)
    n.output(n.linear(x, 5, 2), 3)
    network = load(n.model())
    graph = trace(network)
    assert [group.width for group in graph.groups] == [6, 5, 5]
    widths = dict(zip((group.name for group in graph.groups), ([0, 2], [1, 2, 4], [3]), strict=True))
    assert law(network, graph, widths, feeds_of(network, 2, 0)) < 1e-5


def test_units_of_both_directions_go_together_and_those_of_stacked_layers_apart():
    n = Net(17)
    x = n("Transpose", n.relu(n.linear(n.input(("N", 4, 3)), 3, 6)), perm=[1, 0, 2])
    for inputs in (6, 10):
        args = (n.weight(2, 15, inputs), n.weight(2, 15, 5), n.weight(2, 30))
        y, *_ = n.add("GRU", x, *args, outputs=2, hidden_size=5, direction="bidirectional", linear_before_reset=1)
        x = n.reshape(n("Transpose", y, perm=[0, 2, 1, 3]), 0, 0, 10)
    n.output(n.linear(x, 10, 2), 3)
    network = load(n.model())
    graph = trace(network)
    assert [(group.width, group.consumers[-1].positions.shape[1]) for group in graph.groups] == [(6, 1), (5, 2), (5, 2)]
    assert law(network, graph, supports_of(graph, 0, share=0.5), feeds_of(network, 3, 0)) < 1e-5


def test_a_layer_for_each_direction_keeps_units_of_its_own():
    """As Keras is exported: one layer goes forward, the other back, and a Concat puts them together."""
    n = Net(17)
    x = n("Transpose", n.relu(n.linear(n.input(("N", 4, 3)), 3, 6)), perm=[1, 0, 2])
    both = []
    for direction in ("forward", "reverse"):
        args = (n.weight(1, 20, 6), n.weight(1, 20, 5), n.weight(1, 40))
        both.append(n.squeeze(n.add("LSTM", x, *args, outputs=3, hidden_size=5, direction=direction)[0], 1))
    n.output(n.linear(n.concat(*both, axis=2), 10, 2), 3)
    network = load(n.model())
    graph = trace(network)
    assert [group.width for group in graph.groups] == [6, 5, 5]
    widths = dict(zip((group.name for group in graph.groups), ([0, 2], [1, 2, 4], [3]), strict=True))
    assert law(network, graph, widths, feeds_of(network, 2, 0)) < 1e-5


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_cells_that_are_unrolled_are_cut_as_one_layer_is(op: str):
    """A product with the data and one with the units for each step, with the same weights, whose sums are split into gates."""
    n, gates = Net(17), GATES[op]
    w, r, b = n.weight(6, 5 * gates), n.weight(5, 5 * gates), n.weight(5 * gates)
    x = n.relu(n.linear(n.input(("N", 3, 3)), 3, 6))
    h = c = n("ConstantOfShape", n.concat(n.dim("x", 0), n.constant(np.array([5])), axis=0))
    for step in range(3):
        data = n("Gemm", n.squeeze(n.slice(x, step, step + 1, 1), 1), w, b)
        units = n("MatMul", h, r)
        if op == "LSTM":
            i, o, f, new = n.split(n("Add", data, units), [5] * 4, 1)
            i, o, f = (n("Sigmoid", gate) for gate in (i, o, f))
            c = n("Add", n("Mul", f, c), n("Mul", i, n("Tanh", new)))
            h = n("Mul", o, n("Tanh", c))
        else:
            (a, *last), (d, *before) = (n.split(part, [10, 5], 1) for part in (data, units))
            z, reset = n.split(n("Sigmoid", n("Add", a, d)), [5, 5], 1)
            new = n("Tanh", n("Add", last[0], n("Mul", reset, before[0])))
            h = n("Add", new, n("Mul", z, n("Sub", h, new)))
    n.output(n.linear(h, 5, 2), 2)
    network = load(n.model())
    graph = trace(network)
    assert [group.width for group in graph.groups] == [6, 5]
    for seed in (0, 1):
        supports = supports_of(graph, seed)
        assert law(network, graph, supports, feeds_of(network, 3, seed)) < 1e-5
        small = load(apply(network, graph, Plan(supports=supports)))
        assert sorted(map(len, supports.values())) == sorted(
            group.width for group in trace(small).groups if group.width > 1
        )


def test_layers_whose_zero_states_are_cut_from_one_tensor_keep_units_of_their_own():
    """As TorchScript exports stacked layers: one ConstantOfShape, of which each takes a Slice."""
    n = Net(17)
    x = n("Transpose", n.relu(n.linear(n.input(("N", 4, 3)), 3, 6)), perm=[1, 0, 2])
    sizes = [n.constant(np.array([size])) for size in (4, 5)]
    zeros = n("ConstantOfShape", n.concat(sizes[0], n.dim("x", 0), sizes[1], axis=0))
    bounds = [n.constant(np.array([place])) for place in range(5)]
    for layer, inputs in enumerate((6, 5)):
        states = [n("Slice", zeros, bounds[2 * layer + at], bounds[2 * layer + at + 1], bounds[0]) for at in (0, 1)]
        args = (n.weight(1, 20, inputs), n.weight(1, 20, 5), n.weight(1, 40), "", *states)
        x = n.squeeze(n.add("LSTM", x, *args, outputs=3, hidden_size=5)[0], 1)
    n.output(n.linear(x, 5, 2), 3)
    network = load(n.model())
    graph = trace(network)
    assert [group.width for group in graph.groups] == [6, 5, 5]
    widths = dict(zip((group.name for group in graph.groups), ([0, 2], [1, 2, 4], [3]), strict=True))
    assert law(network, graph, widths, feeds_of(network, 2, 0)) < 1e-5
    small = apply(network, graph, Plan(supports=widths))
    assert not {"ConstantOfShape", "Slice"} & {node.op_type for node in small.graph.node}


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_work_has_the_activations_of_units_which_do_not_fall_as_fast_as_what_is_multiplied(direction: str):
    beside = {}
    for name, case in {
        "LSTM": Recurrent("LSTM", direction, units=64),
        "RNN": Recurrent("RNN", direction, units=64),
        "Relu": Recurrent("RNN", direction, units=64, extra={"activations": ["Relu"] * (1 + (direction != "forward"))}),
    }.items():
        network = load(case.model())
        graph = trace(network)
        units = max(graph.groups, key=lambda group: (group.width == case.units, group.name))
        cost = costs(network, graph, block=8)
        half = {units.name: case.units // 2}
        assert cost.work(half) / cost.work({}) > cost.macs(half) / cost.macs({})
        beside[name] = cost.work({}) - cost.macs({})
        assert costs(network, graph).work(half) == cost.macs(half)
    assert 0 < beside["Relu"] < beside["LSTM"] < beside["RNN"]
