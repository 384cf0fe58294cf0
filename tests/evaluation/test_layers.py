"""Milliseconds by layer, and what is said where a smaller model is no faster."""

import numpy as np
import onnx
import pytest

from onnx_subprune import Channels, Macs, Resources, compare, prune
from onnx_subprune.cli import run
from onnx_subprune.evaluation.layers import LayerTime, layer_times, slower_because
from onnx_subprune.evaluation.timing import Timing
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning import cut
from onnx_subprune.runtime.session import Runnable
from tests.networks.net import Net


def network(width=128):
    """Convolutions with what is fused into them, one of which takes most of the time, and a dense layer."""
    net = Net()
    x = net.relu(net.bn(net.conv(net.input(["n", 3, 24, 24]), 32, 3, name="stem")))
    x = net.relu(net("Add", net.conv(net.relu(net.conv(x, width, 7, name="large")), 32, 1, name="small"), x))
    net.output(net.dense(net("Flatten", net.gap(x)), 32, 5, name="head"), 2)
    return net.model()


def test_every_layer_has_its_time_before_and_after_with_what_is_fused_into_it():
    whole, narrow = network(), network(width=16)
    original = Network(whole)
    feeds = {"x": np.zeros((4, 3, 24, 24), np.float32)}
    found = layer_times(original, trace(original), Runnable(narrow), feeds, threads=1)
    assert [item.name for item in found] == ["stem", "large", "small", "head", "beside the layers"]
    times = {item.name: item for item in found}
    assert times["large"].before > 5 * times["small"].before > 0.0
    assert times["large"].after < times["large"].before
    assert times["beside the layers"].before < sum(item.before for item in found) / 2


def test_layers_that_got_slower_are_named_else_those_that_take_most():
    slower = [LayerTime("a", 1.0, 3.0), LayerTime("b", 4.0, 1.0)]
    assert slower_because(slower) == "slower: a (1 to 3 ms)"
    assert "b (4 of 5 ms)" in slower_because([LayerTime("a", 1.0, 1.0), LayerTime("b", 4.0, 4.0)])


@pytest.mark.parametrize(("ratio", "warned"), [(1.3, True), (0.8, False)])
def test_a_result_that_is_no_faster_is_written_and_said_to_be_so(ratio, warned, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cut, "measured_latency", lambda *_: Timing(1.0, ratio, (ratio, ratio, ratio)))
    onnx.save(network(), tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((8, 3, 24, 24)).astype(np.float32))
    paths = [str(tmp_path / name) for name in ("m.onnx", "o.onnx")]
    words = ["prune", *paths, "--data", str(tmp_path / "x.npy"), "--channels", "0.5", "--no-refit", "--quiet"]
    assert run(words) == 0
    assert ("warning: the result is not faster" in capsys.readouterr().err) == warned


@pytest.mark.parametrize("batch", ["n", 1, 4])
def test_times_are_named_by_the_samples_of_a_run_and_told_of_one_sample_too(batch):
    net = Net()
    net.head(net.relu(net.conv(net.relu(net.conv(net.input([batch, 3, 16, 16]), 32, 3)), 32, 3)))
    data = np.random.default_rng(0).standard_normal((32, 3, 16, 16)).astype(np.float32)
    found = prune(net.model(), data, budget=Channels(0.5), resources=Resources(threads=1, batch_size=8))
    report, text = found.report, str(found.report)
    compared = compare(net.model(), found.model, data[:16], threads=1)
    told = report.to_dict()
    assert f"latency (ms), batch {told['latency_batch']} " in text
    if batch != "n":
        assert told["latency_batch"] == batch
        assert report.latency_single is compared.latency_single is None
        return
    assert 1 < told["latency_batch"] <= 8
    assert told["latency_single"]["after"] == report.latency_single.after < report.latency.after
    for shown in (text, str(compared)):
        assert shown.count("latency (ms), batch") == 2
        assert "latency (ms), batch 1 " in shown


def test_a_result_that_is_slower_on_one_sample_is_said_to_be_so(monkeypatch):
    net = Net()
    net.head(net.relu(net.conv(net.relu(net.conv(net.input(["n", 3, 16, 16]), 32, 3)), 32, 3)))
    data = np.random.default_rng(0).standard_normal((32, 3, 16, 16)).astype(np.float32)
    monkeypatch.setattr("onnx_subprune.pruning.cut.single_latency", lambda *_: Timing(1.0, 1.2, (1.1, 1.2, 1.3)))
    monkeypatch.setattr("onnx_subprune.pruning.cut.result_timing", lambda *_: Timing(2.0, 1.0, (0.4, 0.5, 0.6)))
    report = prune(net.model(), data, budget=Channels(0.5), resources=Resources(threads=1)).report
    assert any("on one sample at a time the result is not faster" in warning for warning in report.warnings)


@pytest.mark.parametrize(("share", "noted"), [(0.61, True), (0.59, False), (1.1, False)])
def test_less_time_gone_than_multiply_accumulates_is_noted_with_the_reason(share, noted, monkeypatch):
    net = Net()
    net.head(net.relu(net.conv(net.relu(net.conv(net.input(["n", 3, 16, 16]), 32, 3)), 32, 3)))
    data = np.random.default_rng(0).standard_normal((32, 3, 16, 16)).astype(np.float32)
    timing = Timing(2.0, 2.0 * share, (share, share, share))
    monkeypatch.setattr("onnx_subprune.pruning.cut.result_timing", lambda *_: timing)
    report = prune(net.model(), data, budget=Macs(0.5), resources=Resources(threads=1)).report
    said = [note for note in report.notes if "of the time are left where 50.0%" in note]
    assert bool(said) == noted
    assert all("--speedup" in note and " ms)" in note for note in said)
