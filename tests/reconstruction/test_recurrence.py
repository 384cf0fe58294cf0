"""Refits of recurrent layers: what is a copy of something else is made up for, step after step."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import numpy_helper

from onnx_subprune import Asymmetric, Channels, Layerwise, Resources, Sequential, prune
from onnx_subprune.calibration.moments.unfold import blocks
from onnx_subprune.calibration.streaming.product import Beside, Product
from onnx_subprune.evaluation.gates import Gates
from onnx_subprune.graph.contractions.recurrent import GATES, UnitWeight, units_before
from onnx_subprune.graph.network import load
from onnx_subprune.graph.operators import attribute, key_of
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.reconstruction.columns import AGAIN, weighed
from onnx_subprune.runtime.session import Session
from onnx_subprune.selection import Problem
from tests.conftest import MODELS
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
    for slot in (1, 2, 3) if case.bias else (1, 2):  # the rows of the gates of the copies
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
    assert apart(reference, Session(prune(model, {"x": x}, **settings).model).run({"x": x})) < 3e-3
    plain = prune(model, {"x": x}, refit=None, **settings).model
    assert apart(reference, Session(plain).run({"x": x})) > 0.03


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_copies_go_where_the_reset_gate_comes_before_the_product(direction, bias):
    """No tensor shows what R reads then; see `test_copies_of_units_and_features_go_and_nothing_is_lost`. Without bias, few samples do not do."""
    model = with_copies(Recurrent("GRU", direction, features=6, units=6, steps=6, bias=bias))
    x = np.random.default_rng(0).standard_normal((64 if bias else 1024, 6, 3)).astype(np.float32)
    settings = {"budget": Channels(0.5), "round_to": 1, "resources": ONE, "gates": ANY}
    reference = Session(model).run({"x": x})
    assert apart(reference, Session(prune(model, {"x": x}, **settings).model).run({"x": x})) < 3e-3
    plain = prune(model, {"x": x}, refit=None, **settings).model
    assert apart(reference, Session(plain).run({"x": x})) > 0.03


def test_candidates_behind_a_reset_gate_are_a_sum_of_what_passes_it_and_of_data():
    rng, kernel = np.random.default_rng(0), UnitWeight(node="", backwards=(False,), units=2)
    units, data = rng.standard_normal((3, 1, 4, 2)), rng.standard_normal((3, 4, 3))
    r, w, b, c = (rng.standard_normal(shape) for shape in ((1, 2, 6), (1, 3, 6), (1, 6), (1, 6)))
    product = Product(kernel=kernel, weights=r, offset=b, beside=Beside("x", w, c, np.arange(6) < 4))
    h = np.concatenate([np.zeros((1, 4, 2)), units[:2, 0]])
    gates = h @ r[0] + b[0] + data @ w[0] + c[0]
    reset = 1.0 / (1.0 + np.exp(-gates[..., 2:4]))
    made, found = product.gated_candidate(units, data)
    wanted = (reset * h) @ r[0][:, 4:] + b[0][4:] + (data @ w[0] + c[0])[..., 4:]
    np.testing.assert_allclose(made[:3, 0], wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[:3, 0], reset, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", [Recurrent("LSTM"), Recurrent("GRU", "bidirectional", reset=1), Recurrent("RNN")])
def test_what_gates_are_is_split_into_units_and_data_that_meet_them(case):
    """Rows and gates as both fits have them, against the operator's definition."""
    rng, directions = np.random.default_rng(0), 2 if case.direction == "bidirectional" else 1
    units, data = rng.standard_normal((4, directions, 2, 5)), rng.standard_normal((4, 2, 6))
    r, w = (rng.standard_normal((directions, size, 5 * GATES[case.op])) for size in (5, 6))
    b, c = rng.standard_normal((2, directions, 5 * GATES[case.op]))
    kernel = UnitWeight(node="", groups=directions, backwards=(False, True)[:directions], units=5)
    summed = np.arange(5 * GATES[case.op]) < (10 if case.op == "GRU" else 20)
    product = Product(kernel=kernel, weights=r, offset=b, beside=Beside("x", w, c, summed))
    (block,) = blocks(kernel, product.beside.rows(kernel, units, data), product.whole(units, data))
    for direction in range(directions):
        start = np.zeros((1, 2, 5))
        h = np.concatenate([start, units[:-1, 0]] if not direction else [units[1:, 1], start])
        x = data
        wanted = h @ r[direction] + b[direction] + np.where(summed, x @ w[direction] + c[direction], 0.0)
        rows = np.concatenate([h, x], axis=-1)
        np.testing.assert_allclose(block.input[direction].T, rows.reshape(8, -1), rtol=1e-6)
        np.testing.assert_allclose(block.target[direction].T, wanted.reshape(8, -1), rtol=1e-4, atol=1e-4)


def test_candidates_of_a_gru_ask_of_the_data_what_their_units_do_not_reach():
    rng, kernel = np.random.default_rng(0), UnitWeight(node="", backwards=(False,), units=2)
    units, data = rng.standard_normal((3, 1, 4, 2)), rng.standard_normal((3, 4, 3))
    r, w, b, c = (rng.standard_normal(shape) for shape in ((1, 2, 6), (1, 3, 6), (1, 6), (1, 6)))
    now = rng.standard_normal((1, 2, 6)), rng.standard_normal((1, 6))
    product = Product(kernel=kernel, weights=r, offset=b, now=now, beside=Beside("x", w, c, np.arange(6) < 4))
    h, x = np.concatenate([np.zeros((1, 4, 2)), units[:2, 0]]), data
    plain = h @ r[0] + b[0]
    reset = 1.0 / (1.0 + np.exp(-(plain + x @ w[0] + c[0])[..., 2:4]))
    wanted = (x @ w[0] + c[0])[..., 4:] + reset * (plain - h @ now[0][0] - now[1][0])[..., 4:]
    np.testing.assert_allclose(product.candidate(units, data, units)[:3, 0], wanted, rtol=1e-4, atol=1e-5)


def test_data_make_up_for_units_that_are_gone():
    """Data that stay the same for all steps know what the units do: W refitted with R loses less than R alone."""
    model = Recurrent("RNN", units=12, steps=8).model(seed=5)
    x = np.repeat(np.random.default_rng(3).standard_normal((192, 1, 3)), 8, axis=1).astype(np.float32)
    settings = {"budget": Channels(0.5), "round_to": 1, "resources": ONE, "gates": ANY, "only": ["op:RNN"]}
    (reference,) = Session(model).run({"x": x}).values()
    errors = []
    for together in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not together:
                patch.setattr("onnx_subprune.reconstruction.layer_by_layer.input_of_gates", lambda *_: None)
            (found,) = Session(prune(model, {"x": x}, **settings).model).run({"x": x}).values()
        errors.append(float(np.mean((found - reference) ** 2)))
    assert errors[0] < 0.6 * errors[1]


def test_units_before_are_those_of_the_step_before_in_each_direction():
    tensor = np.arange(3 * 2 * 2 * 2, dtype=np.float32).reshape(3, 2, 2, 2)
    found = units_before(tensor, (False, True))
    np.testing.assert_array_equal(found[0].T, tensor[:2, 0].reshape(-1, 2))
    np.testing.assert_array_equal(found[1].T, tensor[1:, 1].reshape(-1, 2))


@pytest.mark.parametrize(
    "case",
    [
        Recurrent("LSTM", units=8, features=6, steps=8),
        Recurrent("GRU", reset=1, units=8, steps=8),
        Recurrent("GRU", reset=0, units=8, steps=8),
    ],
    ids=["LSTM", "GRU", "GRU, reset before"],
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
    problems = [problem, replace(problem, energy=2.0)]
    weights = [item.weight for item in weighed(problems, group.consumers, counts, {})]
    assert sorted(zip(counts, weights, strict=True)) == [(10.0, 0.25), (40.0, 1.0)]
    others = [consumer for consumer in group.consumers if not consumer.contraction.recurs]
    assert [item.weight for item in weighed([problem], others, [10.0], {})] == [1.0]


def test_where_all_errors_have_one_unit_they_count_as_they_are():
    network = load(Recurrent("LSTM", last=True, steps=4).model())
    (group,) = (item for item in trace(network).groups if len(item.consumers) == 2)
    energies = [5.0 if consumer.contraction.recurs else 2.0 for consumer in group.consumers]
    problems = [
        Problem(gram=np.eye(1), cross=np.eye(1), energy=e, columns=np.zeros((1, 1), np.int64), prior=np.eye(1))
        for e in energies
    ]
    counts = [40.0 if consumer.contraction.recurs else 10.0 for consumer in group.consumers]
    (recurring,) = (consumer.weight for consumer in group.consumers if consumer.contraction.recurs)
    weights = [item.weight for item in weighed(problems, group.consumers, counts, {recurring: np.ones((1, 20))})]
    assert sorted(zip(counts, weights, strict=True)) == [(10.0, 0.5), (40.0, 5.0 * AGAIN)]


def test_units_that_are_constant_are_chosen_all_the_same():
    """With W and R of zeros nothing is left to lose, up to rounding, which may be below zero."""
    model = Recurrent("RNN", units=8).model()
    (layer,) = (node for node in model.graph.node if node.op_type == "RNN")
    for item in model.graph.initializer:
        if item.name in layer.input[1:3]:
            item.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(item)), item.name))
    x = np.random.default_rng(0).standard_normal((128, 4, 3)).astype(np.float32)
    result = prune(model, {"x": x}, budget=Channels(0.5), round_to=1, resources=ONE, gates=ANY)
    outputs = [next(iter(Session(item).run({"x": x}).values())) for item in (model, result.model)]
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-3)


@pytest.mark.parametrize("energies", [(0.0, 0.0), (0.0, -1e-3)])
def test_where_there_is_nothing_to_lose_problems_weigh_alike(energies):
    network = load(Recurrent("LSTM", last=True, steps=4).model())
    (group,) = (item for item in trace(network).groups if len(item.consumers) == 2)
    problems = [
        Problem(gram=np.eye(1), cross=np.eye(1), energy=e, columns=np.zeros((1, 1), np.int64), prior=np.eye(1))
        for e in energies
    ]
    known = {consumer.weight: np.ones((1, 20)) for consumer in group.consumers if consumer.contraction.recurs}
    assert [item.weight for item in weighed(problems, group.consumers, [8.0, 4.0], known)] == [1.0, 0.5]


@pytest.mark.parametrize(("direction", "most"), [("forward", 0.01), ("bidirectional", 0.2)])
def test_of_a_single_step_from_zeros_the_bias_of_r_makes_up_for_nothing(direction, most):
    """R reads zeros there, and whatever it is fitted to changes its bias alone."""
    model = Recurrent("RNN", direction, units=8, steps=1, states="filled").model()
    x = np.random.default_rng(0).standard_normal((256, 1, 3)).astype(np.float32)
    settings = {"budget": Channels(0.5), "round_to": 1, "resources": ONE, "gates": ANY, "formulation": Sequential()}
    (reference,) = Session(model).run({"x": x}).values()
    errors = []
    for options in ({}, {"refit": None}):
        (found,) = Session(prune(model, {"x": x}, **settings, **options).model).run({"x": x}).values()
        errors.append(float(np.mean((found - reference) ** 2)))
    assert errors[0] < most * errors[1]


@pytest.mark.parametrize(("name", "task"), [("gru_fashion", "fashion"), ("lstm_words", "words")])
def test_sample_models_keep_their_accuracy_with_half_of_their_units_and_with_a_quarter(name, task):
    data, test = (np.load(MODELS / f"{task}_{part}.npz")["input"] for part in ("calibration", "test"))
    x, labels = test.astype(np.float32), np.load(MODELS / f"{task}_test_labels.npy")

    def accuracy(model):
        logits = [Session(model).run({"input": part})["logits"] for part in np.array_split(x, 8)]
        return 100.0 * float(np.mean(np.concatenate(logits).argmax(axis=1) == labels))

    before = accuracy(MODELS / f"{name}.onnx")
    for share, lost in ((0.5, 1.5), (0.25, 5.0)):
        only = ["/gru/*"] if name == "gru_fashion" else ["/lstm/*"]
        result = prune(
            MODELS / f"{name}.onnx",
            {"input": data.astype(np.float32)},
            budget=Channels(share),
            only=only,
            resources=ONE,
        )
        sizes = {attribute(node, "hidden_size") for node in result.model.graph.node if key_of(node) in GATES}
        assert sizes == {int(share * (96 if name == "gru_fashion" else 64))}
        assert before - accuracy(result.model) <= lost


def test_a_layer_of_which_the_last_state_alone_has_a_name_is_refitted_as_well_as_one_with_all_named():
    named, bare = (Recurrent("LSTM", units=12, features=6, steps=8, last=True).model(seed=2) for _ in range(2))
    (layer,) = (node for node in named.graph.node if node.op_type == "LSTM")
    layer.output[0] = "all of them"
    x, other = (np.random.default_rng(seed).standard_normal((128, 8, 3)).astype(np.float32) for seed in (0, 1))
    settings = {"budget": Channels(0.5), "round_to": 1, "resources": ONE, "gates": ANY}
    results = [prune(model, {"x": x}, **settings) for model in (named, bare)]
    outputs = [next(iter(Session(result.model).run({"x": other}).values())) for result in results]
    np.testing.assert_array_equal(*outputs)
