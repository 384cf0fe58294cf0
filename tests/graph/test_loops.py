"""Loops that are recurrent layers are loaded as such, and pruned; what only looks like it stays a Loop."""

import numpy as np
import onnx
import pytest

from onnx_subprune import Gates, Latency, Macs, Resources, prune
from onnx_subprune.evaluation.latency import Race
from onnx_subprune.evaluation.verification import law
from onnx_subprune.graph.network import load
from onnx_subprune.graph.operators import attribute
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.runtime.session import Session
from tests.networks.check import feeds_of, supports_of
from tests.networks.looped import Looped
from tests.networks.net import Net

CASES = [
    Looped("LSTM"),
    Looped("LSTM", apart=True, ones=True, carried=False),
    Looped("LSTM", steps=None, endless=True),
    Looped("LSTM", hard=True, activation="Relu", steps=None),
    Looped("LSTM", fixed=0.0),
    Looped("LSTM", hard=True, spelled=True, apart=True),
    Looped("GRU", hard=True, spelled=True),
    Looped("GRU"),
    Looped("GRU", steps=None, ones=True),
    Looped("GRU", after=False, carried=False),
    Looped("GRU", after=False, hard=True, activation="Softsign", steps=None),
    Looped("RNN"),
    Looped("RNN", activation="Relu", steps=None, carried=False, apart=True),
]
LEFT = (
    "a mask",
    "drawn at random",
    "another cell",
    "one less",
    "from the second",
    "from the last",
    "a counter is read",
    "cells are put out",
)


def called(case: Looped) -> str:
    return "-".join(
        [case.op, *(f"{name}={value}" for name, value in vars(case).items() if value != getattr(Looped(case.op), name))]
    )


def several(case: Looped):
    """Inputs of one sample and of three, of other numbers of steps where these are open."""
    rng = np.random.default_rng(1)
    for samples, steps in ((1, 5), (3, case.steps or 8)):
        yield {"x": rng.standard_normal((samples, steps, 3)).astype(np.float32)}


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("case", CASES, ids=called)
def test_a_loop_is_the_operator_that_it_is(case: Looped, opset: int):
    model = case.model(opset)
    network = load(model)
    assert network.loops == 1
    assert [node.op_type for node in network.given.graph.node if node.op_type in ("Loop", case.op)] == [case.op]
    onnx.checker.check_model(network.given, full_check=True)
    for feeds in several(case):
        for before, after in zip(*(Session(item).run(feeds).values() for item in (model, network.given)), strict=True):
            assert np.allclose(before, after, atol=1e-6)


@pytest.mark.parametrize("case", CASES, ids=called)
def test_units_go_exactly(case: Looped):
    network = load(case.model())
    graph = trace(network)
    assert sorted(group.width for group in graph.groups) == [case.units, case.features]
    supports = supports_of(graph, 0)
    assert law(network, graph, supports, feeds_of(network, 3, 0)) < 1e-5


def test_gates_whose_bias_is_drawn_at_every_step_are_no_constant():
    case = Looped("LSTM", carried=False, change="noise in the gates")
    assert load(case.model()).loops == 0


def test_a_sum_that_is_broadcast_over_the_units_is_no_product():
    assert load(Looped("RNN", change="one number for all units").model()).loops == 0


def test_states_that_begin_alike_for_all_samples_stay_in_a_loop():
    """The operator wants as many as there are samples; zeros, which it begins with anyway, are left out."""
    assert load(Looped("GRU", fixed=0.5).model()).loops == 0
    assert load(Looped("GRU", fixed=0.0).model()).loops == 1


def test_loops_that_share_their_weights_share_them_as_operators():
    n = Net(seed=2)
    case = Looped("GRU", steps=4)
    case.build(n)
    first = n.nodes[-1]
    again = onnx.NodeProto()
    (loop,) = (node for node in n.nodes if node.op_type == "Loop")
    again.CopyFrom(loop)
    again.output[:] = [f"{name}/again" for name in loop.output]
    again.name = "again"
    n.nodes.insert(n.nodes.index(first), again)
    n.output(again.output[-1], 3)
    network = load(n.model())
    assert network.loops == 2
    one, other = (node for node in network.given.graph.node if node.op_type == "GRU")
    assert one.input[1:4] == other.input[1:4]


@pytest.mark.parametrize("change", LEFT)
def test_what_only_looks_like_a_layer_stays_a_loop(change: str):
    model = Looped("LSTM", change=change).model()
    network = load(model)
    assert network.loops == 0
    assert network.given.graph.node == model.graph.node


def test_a_loop_is_pruned_and_the_report_says_what_became_of_it():
    """The time before is that of the Loop, which is what the user runs."""
    model = Looped("GRU", features=16, units=16).model()
    data = np.random.default_rng(0).standard_normal((48, 5, 3)).astype(np.float32)
    found = prune(
        model, data, budget=Macs(0.6), round_to=1, gates=Gates(accept_any=True), resources=Resources(threads=1)
    )
    assert any("a Loop over steps is written as LSTM, GRU or RNN" in note for note in found.report.notes)
    (layer,) = (node for node in found.model.graph.node if node.op_type == "GRU")
    assert attribute(layer, "hidden_size") < 16
    assert not any(node.op_type == "Loop" for node in found.model.graph.node)
    assert any(node.op_type == "Loop" for node in load(model).timed.graph.node)


def test_a_bound_on_latency_is_one_of_the_time_of_the_loop(monkeypatch):
    """What is bounded is what is printed: a third of the Loop's time may be more than the operator takes with all its units."""
    raced = []

    class Recorded(Race):
        def __init__(self, original, *arguments):
            raced.append({node.op_type for node in original.model.graph.node})
            super().__init__(original, *arguments)

    monkeypatch.setattr("onnx_subprune.pruning.budgets.latency.Race", Recorded)
    data = np.random.default_rng(0).standard_normal((48, 5, 3)).astype(np.float32)
    gates, resources = Gates(accept_any=True), Resources(threads=1)
    prune(Looped("GRU", features=16, units=16).model(), data, budget=Latency(0.9), gates=gates, resources=resources)
    assert raced
    assert all("Loop" in operators for operators in raced)
