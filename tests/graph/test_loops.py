"""Loops that are recurrent layers are loaded as such, and pruned; what only looks like it stays a Loop."""

import numpy as np
import onnx
import pytest

from onnx_subprune.evaluation.verification import law
from onnx_subprune.graph.network import load
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.runtime.session import Session
from tests.networks.check import feeds_of, supports_of
from tests.networks.looped import Looped

CASES = [
    Looped("LSTM"),
    Looped("LSTM", apart=True, ones=True, carried=False),
    Looped("LSTM", steps=None, endless=True),
    Looped("LSTM", hard=True, activation="Relu", steps=None),
    Looped("GRU"),
    Looped("GRU", steps=None, ones=True),
    Looped("GRU", after=False, carried=False),
    Looped("GRU", after=False, hard=True, activation="Softsign", steps=None),
    Looped("RNN"),
    Looped("RNN", activation="Relu", steps=None, carried=False, apart=True),
]
LEFT = (
    "a mask",
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


@pytest.mark.parametrize("change", LEFT)
def test_what_only_looks_like_a_layer_stays_a_loop(change: str):
    model = Looped("LSTM", change=change).model()
    network = load(model)
    assert network.loops == 0
    assert network.given.graph.node == model.graph.node
