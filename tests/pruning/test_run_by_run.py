"""Models whose inputs do not begin with samples: fed run by run, or with one value for all samples, by every verb."""

import numpy as np
import pytest

from onnx_subprune.allocation import Channels
from onnx_subprune.errors import DataError
from onnx_subprune.evaluation.metric import Accuracy
from onnx_subprune.graph.network import load
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.budgets.budget import MaxDrop
from onnx_subprune.pruning.collect import collect
from onnx_subprune.pruning.compare import compare
from onnx_subprune.pruning.prune import prune
from onnx_subprune.pruning.prune_from_moments import prune_collected
from onnx_subprune.pruning.resources import Resources
from onnx_subprune.pruning.sensitivity import sensitivity
from onnx_subprune.reconstruction.settings import Asymmetric, Layerwise, Sequential
from onnx_subprune.runtime.session import Session
from tests.networks.net import INT64, Net

RANDOM = np.random.default_rng(0)
CHEAP = Resources(threads=1, trials=0, holdout=0)


def model(batch="n"):
    """A step of a stream: x (batch, 6), a state (2, batch, 4) and a number; half of the hidden units are dead."""
    net = Net(seed=5)
    x, state, rate = net.input([batch, 6]), net.input([2, batch, 4], "state"), net.input([], "rate", INT64)
    w, b = net.weight(6, 16), net.weight(16)
    net.weights[w][:, 1::2] = 0
    net.weights[b][1::2] = 0
    made = net("MatMul", net.relu(net("Add", net("MatMul", x, w, name="up"), b)), net.weight(16, 4))
    mixed = net("Add", made, net.reduce("ReduceMean", state, 0, keepdims=0))
    net.output(net("Mul", net("Tanh", mixed), net("Cast", rate, to=1)))
    net.output(net("Mul", state, net.constant(np.float32(0.5))))
    return net.model()


def runs(count, batch):
    return [
        {
            "x": RANDOM.standard_normal((batch, 6)).astype(np.float32),
            "state": RANDOM.standard_normal((2, batch, 4)).astype(np.float32),
            "rate": np.array(2),
        }
        for _ in range(count)
    ]


def difference(original, small, feeds):
    wanted, have = (Session(item, threads=1).run(feeds) for item in (original, small))
    return max(np.linalg.norm(have[name] - wanted[name]) / np.linalg.norm(wanted[name]) for name in wanted)


@pytest.mark.parametrize(("batch", "count"), [("n", 6), (1, 24)])
@pytest.mark.parametrize("formulation", [Asymmetric(), Sequential(), Layerwise()], ids=lambda item: type(item).__name__)
def test_dead_units_go_of_a_model_that_is_fed_run_by_run(batch, count, formulation):
    original, feeds = model(batch), runs(count, 4 if batch == "n" else 1)
    found = prune(original, feeds, budget=Channels(0.5), formulation=formulation, only=["up"], resources=CHEAP)
    assert difference(original, found.model, feeds[0]) < 1e-5
    assert found.report.data["samples"] == count
    assert compare(original, found.model, feeds, threads=1).fidelity.samples == count


def test_the_moments_of_runs_are_collected(tmp_path):
    original, feeds = model(), runs(4, 4)
    collect(original, feeds, tmp_path / "m.npz", resources=CHEAP)
    small = prune_collected(original, tmp_path / "m.npz", budget=Channels(0.5), only=["up"], resources=CHEAP).model
    assert difference(original, small, feeds[0]) < 1e-5


def test_inputs_with_one_value_for_all_samples():
    original = model(4)  # of a fixed batch, so that the state may be one
    x, constants = runs(1, 16)[0]["x"], {"state": runs(1, 4)[0]["state"], "rate": 3}
    found = prune(original, x, budget=Channels(0.5), only=["up"], resources=CHEAP, constants=constants)
    feeds = {"x": x[:4], "state": constants["state"], "rate": np.array(3)}
    assert difference(original, found.model, feeds) < 1e-5
    assert found.report.macs.before == 6 * 16 + 16 * 4
    assert sensitivity(original, x, resources=CHEAP, constants=constants)[0].output.errors[-1] >= 0.0
    assert compare(original, found.model, x, threads=1, constants=constants).macs.before == found.report.macs.before


def test_without_them_the_error_says_what_to_do():
    feeds = runs(1, 4)[0]
    with pytest.raises(DataError, match=r"'rate'.*--set rate=VALUE.*run by run"):
        prune(model(), {**feeds, "rate": np.full(4, feeds["rate"])}, resources=CHEAP)
    with pytest.raises(DataError, match=r"'state'.*--set state=FILE.npy.*run by run"):
        prune(model(), feeds, resources=CHEAP)


def folding():
    """Rows (N, 6) of which four are one sample, as an image and its copies: half of the hidden units are dead."""
    net = Net(seed=3)
    x = net.input(["N", 6])
    w, b = net.weight(6, 16), net.weight(16)
    net.weights[w][:, 1::2] = 0
    net.weights[b][1::2] = 0
    made = net("MatMul", net.relu(net("Add", net("MatMul", x, w, name="up"), b)), net.weight(16, 4))
    net.output(net.reduce("ReduceMean", net("Reshape", made, net.constant(np.array([-1, 4, 4]))), 1, keepdims=0))
    return net.model()


@pytest.mark.parametrize("rows", [64, 67])
def test_samples_of_several_rows_are_kept_together(rows):
    original, data = folding(), RANDOM.standard_normal((rows, 6)).astype(np.float32)
    assert trace(load(original)).groups
    found = prune(original, data, budget=Channels(0.5), resources=CHEAP)
    assert found.report.data["samples"] == 64
    assert difference(original, found.model, {"x": data[:8]}) < 1e-5
    assert compare(original, found.model, data, threads=1).fidelity.samples == 64
    by_runs = prune(
        original,
        [{"x": data[:4]}, *({"x": data[i : i + 4]} for i in range(4, 64, 4))],
        budget=Channels(0.5),
        resources=CHEAP,
    )
    assert difference(original, by_runs.model, {"x": data[:8]}) < 1e-5


@pytest.mark.parametrize(("rows", "judged"), [(67, 16), (96, 32)])
def test_what_is_left_of_samples_of_several_rows_is_whole_samples(rows, judged):
    data = RANDOM.standard_normal((rows, 6)).astype(np.float32)
    found = prune(folding(), data, budget=Channels(0.5), resources=Resources(threads=1, trials=0, samples=64))
    assert found.report.fidelity.samples == judged
    assert found.report.fidelity.held_out


def test_labels_of_rows_say_nothing_of_samples_of_several_rows():
    original, data, labels = folding(), RANDOM.standard_normal((64, 6)).astype(np.float32), np.zeros(64, np.int64)
    with pytest.raises(DataError, match="a row of scores for every sample"):
        compare(original, original, data, labels=labels, threads=1)
    with pytest.raises(DataError, match="a row of scores for every sample"):
        prune(original, data, budget=MaxDrop(0.1, Accuracy(labels)), resources=CHEAP)


def test_rows_that_do_not_run_at_all_are_refused():
    with pytest.raises(DataError, match="does not run on the data"):
        prune(folding(), RANDOM.standard_normal((3, 6)).astype(np.float32), budget=Channels(0.5), resources=CHEAP)
