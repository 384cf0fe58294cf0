"""Refits of recurrent layers: what is a copy of something else is made up for, step after step."""

import numpy as np
import pytest
from onnx import numpy_helper

from onnx_subprune import Asymmetric, Channels, Layerwise, Resources, Sequential, prune
from onnx_subprune.evaluation.gates import Gates
from onnx_subprune.graph.contractions.recurrent import GATES, units_before
from onnx_subprune.graph.network import load
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.reconstruction.columns import weighed
from onnx_subprune.runtime.session import Session
from onnx_subprune.selection import Problem
from tests.networks.dead import apart
from tests.networks.recurrent import Recurrent

ONE = Resources(threads=1)
ANY = Gates(accept_any=True)
CASES = [
    Recurrent("LSTM", "bidirectional", features=6, units=6, steps=6),
    Recurrent("GRU", reset=1, features=6, units=6, steps=6),
    Recurrent("RNN", "reverse", features=6, units=6, steps=6),
]


def with_copies(case):
    """Of three features and of three units there are two each, of which R and W weigh the first and the second differently."""
    model = case.model(seed=1)
    weights = {item.name: item for item in model.graph.initializer}
    (layer,) = (node for node in model.graph.node if node.op_type == case.op)
    dense = model.graph.node[0].input[1], model.graph.node[1].input[1]
    values = {name: np.array(numpy_helper.to_array(item)) for name, item in weights.items()}
    for name in dense:
        values[name][..., 3:] = values[name][..., :3]
    for slot in (1, 2, 3):  # the rows of the gates of the copies
        value = values[layer.input[slot]]
        parts = value.reshape(len(value), (2 if slot == 3 else 1) * GATES[case.op], 6, -1)
        parts[:, :, 3:] = parts[:, :, :3]
    for name, value in values.items():
        weights[name].CopyFrom(numpy_helper.from_array(value, name))
    return model


@pytest.mark.parametrize("formulation", [Asymmetric(), Sequential(), Layerwise()], ids=lambda item: type(item).__name__)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.op)
def test_copies_of_units_and_features_go_and_nothing_is_lost(case, formulation):
    model = with_copies(case)
    x = np.random.default_rng(0).standard_normal((64, 6, 3)).astype(np.float32)
    settings = {"budget": Channels(0.5), "round_to": 1, "formulation": formulation, "resources": ONE, "gates": ANY}
    reference = Session(model).run({"x": x})
    assert apart(reference, Session(prune(model, {"x": x}, **settings).model).run({"x": x})) < 1e-3
    plain = prune(model, {"x": x}, refit=None, **settings).model
    assert apart(reference, Session(plain).run({"x": x})) > 0.03


def test_units_before_are_those_of_the_step_before_in_each_direction():
    tensor = np.arange(3 * 2 * 2 * 2, dtype=np.float32).reshape(3, 2, 2, 2)
    found = units_before(tensor, (False, True))
    np.testing.assert_array_equal(found[0].T, tensor[:2, 0].reshape(-1, 2))
    np.testing.assert_array_equal(found[1].T, tensor[1:, 1].reshape(-1, 2))


@pytest.mark.parametrize(
    "case", [Recurrent("LSTM", units=8, features=6, steps=8), Recurrent("GRU", reset=1, units=8, steps=8)]
)
def test_refits_lose_less_than_slices_on_sequences_that_they_have_not_seen(case):
    model = case.model(seed=2)
    rng = np.random.default_rng(1)
    x, other = (rng.standard_normal((count, 8, 3)).astype(np.float32) for count in (200, 100))
    settings = {"budget": Channels(0.5), "round_to": 1, "resources": ONE, "gates": ANY}
    (reference,) = Session(model).run({"x": other}).values()
    errors = []
    for options in ({}, {"refit": None}):
        (found,) = Session(prune(model, {"x": x}, **settings, **options).model).run({"x": other}).values()
        errors.append(float(np.mean((found - reference) ** 2)))
    assert errors[0] < 0.7 * errors[1]


def test_a_reader_of_the_last_state_counts_once_where_the_recurrence_counts_a_step():
    network = load(Recurrent("LSTM", last=True, steps=4).model())
    (group,) = (item for item in trace(network).groups if len(item.consumers) == 2)
    problem = Problem(gram=np.eye(1), cross=np.eye(1), energy=1.0, columns=np.zeros((1, 1), np.int64), prior=np.eye(1))
    counts = [40.0 if consumer.contraction.recurs else 10.0 for consumer in group.consumers]
    weights = [item.weight for item in weighed([problem] * 2, group.consumers, counts)]
    assert sorted(zip(counts, weights, strict=True)) == [(10.0, 0.25), (40.0, 1.0)]
    others = [consumer for consumer in group.consumers if not consumer.contraction.recurs]
    assert [item.weight for item in weighed([problem], others, [10.0])] == [1.0]
