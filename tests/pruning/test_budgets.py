"""Budgets met by trying: a drop of a metric, a latency; metrics of the user's own."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from onnx_subprune import (
    Accuracy,
    BudgetError,
    DataError,
    Latency,
    Macs,
    MarginalCost,
    MaxDrop,
    OptionError,
    Resources,
    Threshold,
    Uniform,
    Validation,
    VerificationError,
    prune,
)
from onnx_subprune.allocation import Curve, Factor, Multilinear, Room, Term
from onnx_subprune.calibration.data.holdout import split
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.cli import run
from onnx_subprune.evaluation.timing import Timing
from onnx_subprune.graph.network import load
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.budgets.ladder import Ladder
from onnx_subprune.pruning.budgets.latency import check_latency, first_channels, result_timing
from onnx_subprune.pruning.budgets.latency_search import Search
from onnx_subprune.pruning.budgets.starts import best_ladder, starts_of
from onnx_subprune.runtime.session import Session
from tests.conftest import MODELS

LENET, DENSE = MODELS / "lenet_fashion.onnx", MODELS / "lenet_300_100_fashion.onnx"
FEW = Resources(samples=128)


@pytest.fixture(scope="module")
def labelled():
    """640 labelled test images."""
    with np.load(MODELS / "fashion_test.npz") as archive:
        return archive["input"][:640], np.load(MODELS / "fashion_test_labels.npy")[:640]


def accuracy(model, inputs, labels):
    return float(np.mean(Session(model).run({"input": inputs})["logits"].argmax(axis=1) == labels))


def test_the_metric_drops_by_no_more_than_asked_and_the_report_says_so(labelled):
    inputs, labels = labelled
    found = prune(LENET, inputs, budget=MaxDrop(0.02, Accuracy(labels)), resources=FEW)
    chosen, held = (128 + part for part in split(Calibration(arrays={"x": inputs[128:]}, chunk=32)))
    drop = accuracy(onnx.load(LENET), inputs[chosen], labels[chosen]) - accuracy(
        found.model, inputs[chosen], labels[chosen]
    )
    assert drop <= 0.02 + 1e-9
    assert found.report.macs.ratio < 0.9
    before, after = (accuracy(model, inputs[held], labels[held]) for model in (onnx.load(LENET), found.model))
    assert found.report.fidelity.accuracy == (before, after)
    assert (found.report.metric.before, found.report.metric.after) == (before, after)


def test_a_larger_drop_gives_a_smaller_model_than_none(labelled):
    inputs, labels = labelled
    kept = [
        prune(
            DENSE, inputs, budget=MaxDrop(drop, Accuracy(labels)), resources=FEW, allocator=Uniform()
        ).report.macs.ratio
        for drop in (0.01, 0.1)
    ]
    assert kept[1] < kept[0]


def test_a_drop_that_no_candidate_keeps_names_what_the_gentlest_gave(labelled):
    def size(path):
        return float(Path(path).stat().st_size)

    with pytest.raises(BudgetError, match=r"even at 9\d\.\d% of the multiply-accumulates the metric goes from"):
        prune(LENET, labelled[0][:64], budget=MaxDrop(0.0, Validation(size)))


def test_a_function_of_the_user_gets_the_path_of_a_whole_model(labelled):
    seen = []

    def score(path):
        onnx.checker.check_model(path, full_check=True)
        seen.append(path)
        return -float(sum(np.prod(t.dims) for t in onnx.load(path).graph.initializer))

    found = prune(
        LENET, labelled[0][:64], budget=Macs(0.5), metric=Validation(score, name="small"), resources=Resources(trials=0)
    )
    assert len(seen) == 2
    assert not any(Path(path).exists() for path in seen)
    assert found.report.metric.after > found.report.metric.before
    assert found.report.settings["metric"] == "Validation(name='small')"
    assert found.report.to_dict()["metric"] == {
        "before": found.report.metric.before,
        "after": found.report.metric.after,
    }


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda path: float("nan"), "finite number"),
        (lambda path: {}["missing"], "KeyError"),
        (lambda path: "good", "ValueError"),
    ],
)
def test_a_failing_function_is_a_data_error(few, function, says):
    with pytest.raises(DataError, match=says):
        prune(LENET, few, metric=Validation(function))


def test_labels_need_scores_of_classes(few):
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N, 4] x) => (float[N, 3, 1] z)'
        " <float[4, 8] a, float[8, 3] b, int64[3] s = {0, 3, 1}> { h = MatMul(x, a) r = Relu(h) y = MatMul(r, b) z = Reshape(y, s) }"
    )
    rng = np.random.default_rng(0)
    for name, shape in (("a", (4, 8)), ("b", (8, 3))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    x = rng.normal(size=(16, 4)).astype(np.float32)
    with pytest.raises(OptionError, match="samples, classes"):
        prune(model, x, metric=Accuracy(np.zeros(16, np.int64)))


def test_threshold_needs_a_metric_and_gives_a_model_within_the_budget(labelled):
    inputs, labels = labelled
    with pytest.raises(OptionError, match="needs a metric"):
        prune(LENET, inputs, allocator=Threshold(), resources=FEW)
    found = prune(LENET, inputs, budget=Macs(0.5), allocator=Threshold(), metric=Accuracy(labels), resources=FEW)
    assert 0.4 < found.report.macs.ratio <= 0.5
    assert found.report.fidelity.accuracy[1] > found.report.fidelity.accuracy[0] - 0.08
    drops = [error for group in found.report.groups for error in group.curve[1]]
    assert max(drops) > 0.1
    assert all(
        abs(round(drop * 448) - drop * 448) < 1e-6 for drop in drops
    )  # shares of 448 judged samples, 64 are held out


def ladder(allocator=Uniform()):
    cost = Multilinear((Term(1.0, (Factor(0, {"a": 1}), Factor(0, {"b": 1}))),), {"a": 64, "b": 64})
    return Ladder(rooms=[Room("a", 64), Room("b", 64)], curves={}, cost=cost, allocator=allocator)


def silent(stage, done, total):
    pass


def test_a_stream_stays_whole_in_the_second_widths_that_are_tried_where_the_others_have_so_much_to_give():
    curves = dict.fromkeys("ab", Curve((16, 32, 48), (0.5, 0.3, 0.1)))
    steps = [Room("a", 64, 16), Room("b", 64, 16, 32)]
    both = replace(ladder(MarginalCost()), rooms=steps, curves=curves)
    (same, first), (whole, second), *_ = starts_of(both, 0.5, {"a"})
    assert same is both
    assert first["a"] < 64
    assert second == whole.widths(0.5) == {"a": 64, "b": 32}
    assert all(start["a"] < 64 for _, start in starts_of(both, 0.4, {"a"}))
    assert all(start["a"] < 64 for _, start in starts_of(both, 0.5, ()))


def test_a_cost_that_is_predicted_to_be_out_of_reach_is_left_to_be_measured():
    curves = dict.fromkeys("ab", Curve((16, 32, 48), (0.5, 0.3, 0.1)))
    coarse = replace(ladder(MarginalCost()), rooms=[Room("a", 64, 32), Room("b", 64, 32)], curves=curves)
    task = SimpleNamespace(graph=SimpleNamespace(groups=()))
    assert best_ladder(coarse, 1e-6, task, SimpleNamespace(most=4), {}) is coarse
    assert best_ladder(coarse, 0.5, task, None, {}) is coarse


def search(ratio, rungs=None):
    return Search(budget=Latency(0.5), ladder=rungs or ladder(), ratio=ratio, watch=silent, seconds=1.0)


@pytest.mark.parametrize("slower", [1.0, 1.4, 0.8, 0.6, 3.0])
def test_the_widest_widths_within_the_latency_are_found_however_far_predictions_are_off(slower):
    asked = []

    def ratio(widths, seconds):
        asked.append(dict(widths))
        return slower * widths["a"] * widths["b"] / 64**2

    widths = search(ratio).widths()
    assert 0.475 < slower * widths["a"] * widths["b"] / 64**2 <= 0.5
    assert len(asked) <= 3


def test_of_widths_within_the_latency_those_that_lose_least_are_taken_though_wider_ones_were_measured():
    """Blocks are coarse: what is predicted below 0.5 takes 0.45, the next ones take more than is allowed."""
    curves = dict.fromkeys("ab", Curve((16, 32, 48), (0.5, 0.3, 0.1)))
    coarse = replace(ladder(MarginalCost()), rooms=[Room("a", 64, 16), Room("b", 64, 16)], curves=curves)
    found = search(lambda widths, seconds: 0.45 if coarse.fraction(widths) < 0.5 else 0.52, coarse)
    assert found.widths() == coarse.widths(0.49)
    assert max(coarse.fraction(widths) for widths, _, _ in found.measured) >= 0.5


def test_what_is_hardly_beyond_the_bound_is_measured_once_more():
    scattered = iter([0.505, 0.481])
    found = search(lambda widths, seconds: next(scattered))
    found.widths()
    assert [share for _, _, share in found.measured] == pytest.approx([0.493])


def test_where_the_model_itself_is_beyond_the_bound_narrower_widths_take_its_place():
    def ratio(widths, seconds):
        return widths["a"] * widths["b"] / 64**2

    found = search(ratio)
    first = found.widths()
    other = found.instead(first, 0.51)
    assert 0.45 < ratio(other, 1.0) <= 0.485 < ratio(first, 1.0)


def test_a_latency_out_of_reach_names_the_least():
    with pytest.raises(BudgetError, match=r"the least measured here is 0\.7 "):
        search(lambda widths, seconds: 0.7).widths()
    with pytest.raises(BudgetError, match=r"0\.498 of the original's, and 0\.495 is aimed at"):
        search(lambda widths, seconds: 0.498).widths()


def test_a_model_that_seems_to_be_beyond_its_bound_is_measured_for_longer_and_all_of_it_counts():
    asked = []

    def timed(seconds):
        asked.append(seconds)
        ratio = 0.53 if len(asked) == 1 else 0.47
        return Timing(10.0, 10.0 * ratio, (ratio - 0.1, ratio, ratio + 0.1))

    found = result_timing(Latency(0.5), None, None, timed)
    assert asked == [2.0, 4.0]
    assert (found.before, found.after, found.ratio) == pytest.approx((10.0, 4.9, 0.49))
    assert result_timing(Latency(0.5), None, None, timed).ratio == 0.47
    assert len(asked) == 3


def test_a_missed_bound_is_a_failed_verification():
    check_latency(Latency(0.5), Timing(10.0, 5.0, (0.49, 0.5, 0.51)))
    with pytest.raises(VerificationError, match=r"0\.52 of the original's"):
        check_latency(Latency(0.5), Timing(10.0, 5.2, (0.49, 0.5, 0.51)))
    check_latency(Macs(0.5), Timing(10.0, 9.0, (0.89, 0.9, 0.91)))
    with pytest.raises(VerificationError, match="nothing was written"):
        check_latency(Latency(0.5), Timing(10.0, 5.1, (0.49, 0.51, 0.6)))


def test_the_first_channels_are_equally_many_of_each_cell():
    for group in trace(load(LENET)).groups:
        assert first_channels(group, group.width) == tuple(range(group.width))
        half = first_channels(group, max(1, group.width // 2))
        assert len(set(half)) == max(1, group.width // 2)


def test_a_latency_budget_is_met_or_nothing_is_written(tmp_path, few, capsys):
    np.save(tmp_path / "x.npy", few)
    out, report = tmp_path / "s.onnx", tmp_path / "r.json"
    tokens = ["prune", DENSE, out, "--data", tmp_path / "x.npy", "--latency", "0.7", "--threads", 1, "--json", report]
    status = run([*map(str, tokens), "--quiet", "--allocation", "uniform", "--no-refit"])
    if status == 0:
        found = json.loads(report.read_text())["cost"]["latency_ms"]
        assert found["after"] <= 0.7 * found["before"]
        assert out.exists()
    else:
        told = capsys.readouterr().err
        assert (status, "misses its bound" in told, "cannot be reached" in told) in ((1, True, False), (2, False, True))
        assert not out.exists()
        assert not report.exists()


def test_the_command_line_takes_labels_and_scripts(tmp_path, labelled, capsys):
    inputs, labels = labelled
    np.save(tmp_path / "x.npy", inputs[:256])
    np.savez(tmp_path / "y.npz", truth=labels[:256])
    (tmp_path / "v.py").write_text("import os\ndef size(path):\n    return -os.path.getsize(path) / 1000\n")
    common = ["prune", str(LENET), "--data", str(tmp_path / "x.npy"), "--samples", "64"]
    drop = ["--max-drop", "0.05", "--labels", f"{tmp_path}/y.npz:truth", str(tmp_path / "a.onnx")]
    assert run([*common, *drop]) == 0
    assert "accuracy with labels" in capsys.readouterr().out
    assert run([*common, "--validate", f"{tmp_path}/v.py:size", str(tmp_path / "b.onnx")]) == 0
    assert "metric: -248.433 before" in capsys.readouterr().out
    assert run([*common, "--validate", f"{tmp_path}/v.py:none", str(tmp_path / "c.onnx")]) == 2
    assert "has no function 'none'" in capsys.readouterr().err
