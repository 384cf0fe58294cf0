"""Where units are chosen, the gates of a recurrent layer count by what their errors do."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

from onnx_subprune import Channels, Gates, Resources, prune
from onnx_subprune.graph.channels import Use
from onnx_subprune.reconstruction.gate_importance import LEAST, with_importance
from onnx_subprune.reconstruction.recurrent_units import slopes
from tests.networks.recurrent import Recurrent

STEP, H = 1e-3, 4
RNG = np.random.default_rng(11)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def unit(op, linear, made, read, before, recurrence, shift):
    """The next units from the sums that W and R make."""
    if op == "RNN":
        return np.tanh(made + read)
    update, reset = sigmoid((made + read)[:, :H]), sigmoid((made + read)[:, H : 2 * H])
    hidden = read[:, 2 * H :] * reset if linear else read[:, 2 * H :] + (reset * before) @ recurrence[2 * H :].T
    candidate = np.tanh(made[:, 2 * H :] + hidden)
    return (1 - update) * candidate + update * before


@pytest.mark.parametrize(("op", "linear"), [("RNN", 0), ("GRU", 0), ("GRU", 1)])
@pytest.mark.parametrize("backward", [False, True])
def test_slopes_are_those_of_finite_differences(op, linear, backward):
    gates = 3 if op == "GRU" else 1
    weights, recurrence, bias = (RNG.standard_normal(s) for s in ((gates * H, 3), (gates * H, H), (2, gates * H)))
    data, made = RNG.standard_normal((2, 6, 3)), np.tanh(RNG.standard_normal((2, 1, 6, H)))
    node = helper.make_node(op, ["x", "w", "r", "b"], ["y"], linear_before_reset=linear)
    constants = (weights[None], recurrence[None], bias.reshape(1, -1))
    found = slopes(node, constants, [backward], data, made)
    expected = [np.zeros(gates * H), np.zeros(gates * H)]
    for step in range(2):
        other = step + 1 if backward else step - 1
        before = made[other, 0] if 0 <= other < 2 else np.zeros((6, H))
        sums = [data[step] @ weights.T + bias[0], before @ recurrence.T + bias[1]]
        if op == "GRU" and not linear:
            sums[1][:, 2 * H :] = bias[1][2 * H :]
        for side in (0, 1):
            for target in range(gates * H):
                ends = []
                for sign in (1, -1):
                    moved = [item.copy() for item in sums]
                    moved[side][:, target] += sign * STEP
                    ends.append(unit(op, linear, *moved, before, recurrence, bias[1]))
                moved_by = ((ends[0] - ends[1]) / (2 * STEP)).sum(axis=1)
                expected[side][target] += np.sum(moved_by**2)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours[0], theirs, rtol=1e-3, atol=1e-6)


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


DATA = np.random.default_rng(3).standard_normal((64, 4, 3)).astype(np.float32)


def seen(monkeypatch, model):
    tasks = []

    def watched(task, groups):
        tasks.append(with_importance(task, groups))
        return tasks[-1]

    for name in ("onnx_subprune.reconstruction.shared_groups", "onnx_subprune.pruning.budgets.sensitivity"):
        monkeypatch.setattr(f"{name}.with_importance", watched)
    result = prune(
        model, DATA, budget=Channels(0.6), round_to=1, resources=Resources(threads=1), gates=Gates(accept_any=True)
    )
    return tasks, result


def test_what_nobody_reads_counts_for_nothing_and_goes(deaf, monkeypatch):
    model, node = deaf
    tasks, result = seen(monkeypatch, model)
    found = tasks[-1].importance
    data, units = (found[Use(node.name, slot)].reshape(2, 3, 5) for slot in (1, 2))
    for scale in (data, units):
        assert np.sqrt(np.mean(scale**2)) == pytest.approx(1.0, rel=0.01)
        assert (scale[:, :, 0] == LEAST).all()
        assert (scale[:, :, 1:] > LEAST).all()
    (group,) = (item for item in result.report.groups if item.width[0] == 5)
    assert 0 not in group.kept


@pytest.mark.parametrize(
    "case",
    [
        Recurrent("LSTM"),
        Recurrent("GRU", extra={"activations": ["HardSigmoid", "Softsign"]}),
        Recurrent("GRU", lengths=True),
        Recurrent("GRU", states="given"),
    ],
    ids=["lstm", "activations", "lengths", "states"],
)
def test_where_gates_do_not_follow_from_what_is_seen_all_count_alike(case, monkeypatch):
    tasks, _ = seen(monkeypatch, case.model())
    assert all(not task.importance for task in tasks)
