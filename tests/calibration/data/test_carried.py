"""Streaming models go through their data in order: each run is fed the state that the run before put out."""

import numpy as np
import pytest

from onnx_subprune import Channels, DataError, OptionError, Resources, carried, compare, prune
from onnx_subprune.calibration.data.carried import carries_named
from onnx_subprune.cli import run
from onnx_subprune.evaluation.gates import Gates
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.streams import with_own_states
from onnx_subprune.runtime.session import Session
from tests.networks.net import Net

CARRY = {"h": "last"}


def stream(batch=1):
    """A GRU of five units over four steps of (batch, 3), with the state that it ends with for an output."""
    n = Net(17, seed=3)
    x = n("Transpose", n.relu(n.linear(n.input((batch, 4, 3)), 3, 8)), perm=[1, 0, 2])
    args = (n.weight(1, 15, 8), n.weight(1, 15, 5), n.weight(1, 30), "", n.input((1, batch, 5), "h"))
    y, last = n.add("GRU", x, *args, outputs=2, hidden_size=5, linear_before_reset=1)
    n.output(n.linear(n.squeeze(y, 1), 5, 2), 3)
    n.nodes.append(n.nodes[-1].__class__(op_type="Identity", input=[last], output=["last"]))
    n.output("last", 3)
    return n.model()


DATA = np.random.default_rng(0).standard_normal((24, 4, 3)).astype(np.float32)


def test_each_run_is_fed_the_state_of_the_run_before_and_the_first_zeros():
    model, session = stream(), Session(stream())
    for data in (DATA, {"x": DATA}, [{"x": part[None]} for part in DATA]):
        runs = carried(model, data, CARRY)
        assert len(runs) == 24
        state = np.zeros((1, 1, 5), np.float32)
        for feeds, part in zip(runs, DATA, strict=True):
            np.testing.assert_array_equal(feeds["x"], part[None])
            np.testing.assert_allclose(feeds["h"], state, atol=1e-6)
            state = session.run(feeds)["last"]
    assert np.abs(runs[-1]["h"]).max() > 0.05


@pytest.mark.parametrize("batch", ["N", 2])
def test_files_have_runs_of_the_batch_that_the_model_insists_on(batch):
    runs = carried(stream(batch), DATA, CARRY)
    size = 2 if batch == 2 else 1
    assert [feeds["h"].shape for feeds in runs] == [(1, size, 5)] * (24 // size)


def test_what_is_carried_prunes_all_but_the_state():
    model = stream()
    runs = carried(model, DATA, CARRY)
    result = prune(
        model, runs, budget=Channels(0.5), round_to=1, resources=Resources(threads=1), gates=Gates(accept_any=True)
    )
    assert [(group.width) for group in result.report.groups] == [(8, 4)]
    assert compare(model, result.model, runs, threads=1).fidelity.samples == 24
    assert any("'h' is an input" in pinned.reason for pinned in trace(model).pinned)


def test_wrong_names_and_states_that_are_no_next_value_are_refused():
    with pytest.raises(OptionError, match="no input 'state'"):
        carried(stream(), DATA, {"state": "last"})
    with pytest.raises(OptionError, match="no output 'state'"):
        carried(stream(), DATA, {"h": "state"})
    other = next(port.name for port in Session(stream()).outputs if port.name != "last")
    with pytest.raises(DataError, match="no next value"):
        carried(stream(), DATA, {"h": other})
    for text in ("h", "=last", "h="):
        with pytest.raises(OptionError, match="STATE_IN=STATE_OUT"):
            carries_named([text])
    with pytest.raises(OptionError, match="once for an input"):
        carries_named(["h=last", "h=last"])


def test_the_command_line_carries_states(tmp_path, capsys):
    model, data, small = (str(tmp_path / name) for name in ("model.onnx", "data.npz", "small.onnx"))
    (tmp_path / "model.onnx").write_bytes(stream().SerializeToString())
    np.savez(data, x=DATA)
    options = ["--data", data, "--carry", "h=last"]
    common = ["--channels", "0.5", "--round-to", "1", "--threads", "1", "--accept-any", "--quiet"]
    assert run(["prune", model, small, *options, *common]) == 0
    assert run(["compare", model, small, *options, "--threads", "1"]) == 0
    assert "24 samples" in capsys.readouterr().out


def test_moments_are_collected_of_the_states_that_are_met_and_shards_are_those_of_the_whole_stream(tmp_path):
    model, data = str(tmp_path / "model.onnx"), str(tmp_path / "data.npz")
    (tmp_path / "model.onnx").write_bytes(stream().SerializeToString())
    np.savez(data, x=DATA)
    small = {}
    for name, options in {
        "whole": ["--data", data, "--carry", "h=last"],
        "half": ["--data", data, "--carry", "h=last", "--shard", "1/2"],
        "other": ["--data", data, "--carry", "h=last", "--shard", "2/2"],
    }.items():
        assert run(["collect", model, *options, "--threads", "1", "-o", str(tmp_path / f"{name}.npz"), "--quiet"]) == 0
    parts = [str(tmp_path / f"{name}.npz") for name in ("half", "other")]
    assert run(["merge", *parts, "-o", str(tmp_path / "merged.npz")]) == 0
    for name in ("whole", "merged"):
        out = tmp_path / f"{name}.onnx"
        common = ["--channels", "0.5", "--round-to", "1", "--threads", "1", "--quiet"]
        assert run(["prune", model, str(out), "--statistics", str(tmp_path / f"{name}.npz"), *common]) == 0
        small[name] = out.read_bytes()
    assert small["whole"] == small["merged"]


def streamed_error(model, other, output):
    """What an output of `other` is wrong by when both go through the data, each with the states that it makes itself."""
    made = []
    for session in (Session(model), Session(other)):
        state, found = np.zeros((1, 1, 5), np.float32), []
        for part in DATA:
            values = session.run({"x": part[None], "h": state})
            state = values["last"]
            found.append(values[output])
        made.append(np.concatenate(found))
    return float(np.linalg.norm(made[1] - made[0]) / np.linalg.norm(made[0]))


def test_each_model_is_compared_with_its_own_states():
    """What the pruned model is wrong by goes on to its next run, which states of the original hide."""
    model = stream()
    runs = carried(model, DATA, CARRY)
    result = prune(
        model, runs, budget=Channels(0.5), round_to=1, resources=Resources(threads=1), gates=Gates(accept_any=True)
    )
    found = compare(model, result.model, DATA, threads=1, carry=CARRY).fidelity
    shown = compare(model, result.model, runs, threads=1).fidelity
    for name, item in found.outputs.items():
        assert item.relative_error == pytest.approx(streamed_error(model, result.model, name), rel=1e-4)
        assert item.relative_error != pytest.approx(shown.outputs[name].relative_error, rel=1e-3)
    noted = with_own_states(result, model, DATA, CARRY, {}).report.notes[-1]
    assert f"'last' {found.outputs['last'].relative_error:.4f}" in noted
