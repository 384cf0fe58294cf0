"""Where units are chosen, the gates of a recurrent layer count by what their errors do."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

from onnx_subprune import Channels, Gates, Resources, prune
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.network import load
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.reconstruction.gate_importance import LEAST, with_importance
from onnx_subprune.reconstruction.recurrent_units import felt
from onnx_subprune.reconstruction.unit_readers import UnitReader, unit_readers
from onnx_subprune.selection import WeightNorm
from tests.networks.net import Net
from tests.networks.recurrent import Recurrent

STEP, H, T, N = 1e-3, 4, 3, 5
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
RNG = np.random.default_rng(11)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def states_of(op, linear, data, constants, moved=None):
    """Units at all steps, (steps, batch, h); moved: a step, a side (W, R), a gate's row, and how much its sum is moved there."""
    weights, recurrence, bias = constants
    h, cell, found = np.zeros((N, H)), np.zeros((N, H)), []
    for step in range(T):
        sums = [data[step] @ weights.T + bias[0], h @ recurrence.T + bias[1]]
        late = np.zeros((N, H))
        if moved is not None and moved[0] == step:
            side, row, by = moved[1:]
            if op == "GRU" and not linear and side and row >= 2 * H:
                late[:, row - 2 * H] = by  # this sum comes behind the reset gate
            else:
                sums[side][:, row] += by
        both = sums[0] + sums[1]
        if op == "RNN":
            h = np.tanh(both)
        elif op == "LSTM":
            enters, leaves, stays = (sigmoid(both[:, at * H : (at + 1) * H]) for at in range(3))
            cell = stays * cell + enters * np.tanh(both[:, 3 * H :])
            h = leaves * np.tanh(cell)
        else:
            update, reset = sigmoid(both[:, :H]), sigmoid(both[:, H : 2 * H])
            early = (reset * h) @ recurrence[2 * H :].T + bias[1][2 * H :] + late
            hidden = sums[1][:, 2 * H :] * reset if linear else early
            h = (1 - update) * np.tanh(sums[0][:, 2 * H :] + hidden) + update * h
        found.append(h)
    return np.stack(found)


@pytest.mark.parametrize(("op", "linear"), [("RNN", 0), ("GRU", 0), ("GRU", 1), ("LSTM", 0)])
@pytest.mark.parametrize("backward", [False, True])
def test_what_is_felt_is_that_of_finite_differences(op, linear, backward):
    rows = GATES[op] * H
    constants = tuple(RNG.standard_normal(s) for s in ((rows, 3), (rows, H), (2, rows)))
    data, heard = RNG.standard_normal((T, N, 3)), RNG.standard_normal((T, N, H))
    made = states_of(op, linear, data, constants)
    expected = np.zeros((2, rows))
    for step in range(T):
        for side in range(2):
            for row in range(rows):
                ends = [states_of(op, linear, data, constants, (step, side, row, sign * STEP)) for sign in (1, -1)]
                by = ((ends[0] - ends[1]) / (2 * STEP) * heard).sum(axis=(0, 2))
                expected[side, row] += np.sum(by**2)
    node = helper.make_node(op, ["x", "w", "r", "b"], ["y"], linear_before_reset=linear)
    turned = [item[::-1] if backward else item for item in (data, made, heard)]
    weights, recurrence, bias = constants
    found = felt(
        node,
        (weights[None], recurrence[None], bias.reshape(1, -1)),
        [backward],
        turned[0],
        turned[1][:, None],
        turned[2][:, None],
    )
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours[0], theirs, rtol=2e-3, atol=1e-5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("op", "linear"), [("RNN", 0), ("GRU", 0), ("GRU", 1), ("LSTM", 0)])
@pytest.mark.parametrize("size", [8.0, 3e4])
def test_what_is_felt_is_finite_where_units_are_chaotic_and_where_gates_are_shut(op, linear, size):
    """Over so many steps small errors grow beyond what float32 can hold."""
    rng, rows, steps = np.random.default_rng(0), 8 * GATES[op], 400
    weights, recurrence = (size * rng.standard_normal((1, rows, width)) for width in (3, 8))
    data, made = rng.standard_normal((steps, N, 3)), rng.uniform(-1.0, 1.0, (steps, 1, N, 8))
    heard = np.zeros((steps, 1, N, 8))
    heard[-1] = 1.0
    node = helper.make_node(op, ["x", "w", "r"], ["y"], linear_before_reset=linear)
    for found in felt(node, (weights, recurrence, None), [False], data, made, heard):
        assert np.isfinite(found).all()


def reader(**changed):
    loud = np.array([[1.0, 2.0], [3.0, 0.0]])
    return UnitReader(**{"loud": loud, "tensor": "read", "axis": 1, "last": False, "once": False} | changed)


MADE = RNG.standard_normal((4, 2, 3, 2)).astype(np.float32)
BOTH_WAYS = (False, True)
ENDS = np.concatenate([MADE[-1, 0], MADE[0, 1]], axis=-1)
FORWARD_LAST, BACKWARD_FIRST = [(3, 0), (0, 1)], [(3, 0), (3, 1)]


@pytest.mark.parametrize(
    ("item", "read", "places"),
    [
        (reader(last=True), None, FORWARD_LAST),
        (reader(once=True), ENDS, FORWARD_LAST),
        (reader(once=True, axis=0), ENDS.T, FORWARD_LAST),
        (reader(once=True), MADE[-1].transpose(1, 0, 2).reshape(3, 4), BACKWARD_FIRST),
        (reader(once=True), MADE[0].transpose(1, 0, 2).reshape(3, 4), [(0, 0), (0, 1)]),
    ],
    ids=["last states", "both ends", "turned", "the last step", "the first"],
)
def test_a_reader_of_one_step_hears_that_alone(item, read, places):
    found = item.squares(MADE, {"read": read}, BOTH_WAYS)
    expected = np.zeros((4, 2, 1, 2))
    for step, direction in places:
        expected[step, direction, 0] = item.loud[direction] ** 2
    np.testing.assert_array_equal(found, expected)


def test_a_reader_of_a_mean_hears_all_steps_a_little_and_one_of_all_each_of_them():
    mean = MADE.mean(axis=0).transpose(1, 0, 2).reshape(3, 4)
    every = np.broadcast_to(reader().loud[:, None] ** 2, (4, 2, 1, 2))
    np.testing.assert_allclose(reader(once=True).squares(MADE, {"read": mean}, BOTH_WAYS), every / 4)
    np.testing.assert_array_equal(reader().squares(MADE, {}, BOTH_WAYS), every)


@pytest.fixture(scope="module")
def deaf():
    """A network of which nothing reads the first unit."""
    case = Recurrent("GRU", "bidirectional", reset=1, units=5)
    model = case.model()
    (node,) = (item for item in model.graph.node if item.op_type == "GRU")
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor).copy()
        if tensor.name == node.input[2]:
            value[:, :, 0] = 0.0
        elif value.shape == (10, 2):
            value[[0, 5]] = 0.0
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return model, node


@pytest.mark.parametrize(("how", "own"), [("Mul", {"linear"}), ("stacked", {"linear", "gru W"})])
def test_readers_of_units_that_are_tied_to_units_of_another_layer_are_no_readers_of_theirs(how, own):
    """The sum, or the product, of both layers' units is read by a dense layer; the units of each by its own R as well."""
    n = Net()
    x = n.input((6, 2, 5))
    made = []
    for source, width in (("x", 5), (None, 4)) if how == "stacked" else (("x", 5), ("x", 5)):
        weights = n.weight(1, 12, width), n.weight(1, 12, 4)
        node = n.add("GRU", made[0] if source is None else x, *weights, outputs=2, hidden_size=4, linear_before_reset=1)
        made.append(n.squeeze(node[0], 1))
    both = n("Add" if how == "stacked" else how, *made)
    n.output(n.linear(both, 4, 2), 3)
    network = load(n.model())
    graph = trace(network)
    (group,) = graph.groups
    first, second = (c for c in group.consumers if c.contraction.recurs)
    others = {c.weight: "gru W" if c.node == second.node else "linear" for c in group.consumers}
    found = unit_readers(network, graph, group, first, {})
    inputs = {c.contraction.input.tensor: others[c.weight] for c in group.consumers if not c.contraction.recurs}
    assert {inputs[reader.tensor] for reader in found} == own
    assert [inputs[reader.tensor] for reader in unit_readers(network, graph, group, second, {})] == ["linear"]


DATA = np.random.default_rng(3).standard_normal((64, 4, 3)).astype(np.float32)


def seen(monkeypatch, model, **more):
    tasks = []

    def watched(task, groups):
        tasks.append(with_importance(task, groups))
        return tasks[-1]

    for name in ("onnx_subprune.reconstruction.shared_groups", "onnx_subprune.pruning.budgets.sensitivity"):
        monkeypatch.setattr(f"{name}.with_importance", watched)
    result = prune(
        model,
        DATA,
        budget=Channels(0.6),
        round_to=1,
        resources=Resources(threads=1),
        gates=Gates(accept_any=True),
        **more,
    )
    return tasks, result


def test_what_nobody_reads_counts_for_nothing_and_goes(deaf, monkeypatch):
    model, node = deaf
    tasks, result = seen(monkeypatch, model)
    found = tasks[-1].importance
    data, units = (found[Use(node.name, slot)].reshape(2, 3, 5) for slot in (1, 2))
    for scale in (data, units):
        least = LEAST * np.sqrt(np.mean(scale**2))
        np.testing.assert_allclose(scale[:, :, 0], least, rtol=0.01)
        assert (scale[:, :, 1:] > 2 * least).all()
    (group,) = (item for item in result.report.groups if item.width[0] == 5)
    assert 0 not in group.kept


@pytest.mark.parametrize(
    "case",
    [
        Recurrent("LSTM", peepholes=True),
        Recurrent("GRU", extra={"activations": ["HardSigmoid", "Softsign"]}),
        Recurrent("GRU", lengths=True),
        Recurrent("GRU", states="given"),
    ],
    ids=["peepholes", "activations", "lengths", "states"],
)
def test_where_gates_do_not_follow_from_what_is_seen_all_count_alike(case, monkeypatch):
    tasks, _ = seen(monkeypatch, case.model())
    assert all(not task.importance for task in tasks)


def test_selectors_that_are_published_as_they_are_see_the_weights_as_they_are(deaf, monkeypatch):
    tasks, _ = seen(monkeypatch, deaf[0], selector=WeightNorm())
    assert all(not task.importance for task in tasks)


def test_some_samples_at_a_time_say_what_all_say(deaf, monkeypatch):
    whole = seen(monkeypatch, deaf[0])[0][-1].importance
    monkeypatch.setattr("onnx_subprune.reconstruction.gate_importance.PIECE", 1 << 9)
    parts = seen(monkeypatch, deaf[0])[0][-1].importance
    assert whole
    for use, value in whole.items():
        np.testing.assert_allclose(parts[use], value, rtol=1e-5)
