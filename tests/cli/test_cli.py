"""The command line as a user meets it."""

import json
import os
import shutil
import subprocess
import sys
from typing import get_args

import numpy as np
import onnx
import pytest

from onnx_subprune.cli import run
from onnx_subprune.pruning.arguments import ALLOCATORS, FORMULATIONS, AllocatorName, FormulationName
from tests.conftest import MODELS
from tests.networks.net import Net

LENET = MODELS / "lenet_fashion.onnx"
LABELS = str(MODELS / "fashion_test_labels.npy")


@pytest.fixture
def data(tmp_path, few):
    path = tmp_path / "x.npz"
    np.savez(path, input=few)
    return path


def error_of(capsys, status, tokens):
    """Run, and return the one line on stderr."""
    assert run([str(token) for token in tokens]) == status
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def test_prune_writes_a_smaller_model_a_table_and_a_report(tmp_path, data, capsys):
    out, report = tmp_path / "small.onnx", tmp_path / "report.json"
    assert run(["prune", str(LENET), str(out), "--data", str(data), "--macs", "0.5", "--json", str(report)]) == 0
    onnx.checker.check_model(out, full_check=True)
    assert out.stat().st_size < LENET.stat().st_size
    printed = capsys.readouterr().out
    assert "multiply-accumulates" in printed
    found = json.loads(report.read_text())
    assert found["schema"] == 1
    assert found["cost"]["macs"]["after"] <= 0.5 * found["cost"]["macs"]["before"]
    assert set(found) >= {
        "version",
        "command",
        "settings",
        "environment",
        "model",
        "data",
        "groups",
        "pinned",
        "fidelity",
        "seconds",
    }
    measures = {"relative_error", "cosine", "agreement", "correlation", "standardized_error", "chance"}
    measures |= {"relative_error_spread", "agreement_spread", "signs", "recalled"}
    item = found["fidelity"]["outputs"]["logits"]
    assert measures == set(item)
    assert f"{item['relative_error']:.4f} +- {item['relative_error_spread']:.4f}" in printed
    assert all(len(group["kept"]) == group["width"]["after"] for group in found["groups"])


@pytest.mark.parametrize(
    "budget", [["--params", "0.4"], ["--channels", "0.5"], ["--macs", "0.3", "--allocation", "uniform"]]
)
@pytest.mark.parametrize("formulation", ["asymmetric", "sequential", "layerwise"])
def test_every_formulation_and_budget_gives_a_verified_model(tmp_path, data, budget, formulation):
    out = tmp_path / "small.onnx"
    tokens = ["prune", LENET, out, "--data", data, *budget, "--formulation", formulation, "--quiet"]
    assert run([str(token) for token in tokens]) == 0
    onnx.checker.check_model(out, full_check=True)


def test_equal_settings_give_equal_bytes_for_every_batch_size(tmp_path, data):
    written = []
    for size in (1, 7, 32):
        out = tmp_path / f"small{size}.onnx"
        tokens = ["prune", LENET, out, "--data", data, "--batch-size", size, "--trials", 3, "--quiet"]
        assert run([str(token) for token in tokens]) == 0
        written.append(out.read_bytes())
    assert written[0] == written[1] == written[2]


def test_inspect_shows_groups_and_reasons(capsys, tmp_path):
    assert run(["inspect", str(LENET), "--json", str(tmp_path / "i.json")]) == 0
    assert "output of the model" in " ".join(capsys.readouterr().out.split())
    assert len(json.loads((tmp_path / "i.json").read_text())["groups"]) == 4


def test_compare_shows_accuracy_where_labels_are_given(capsys):
    tokens = [
        "compare",
        LENET,
        LENET,
        "--data",
        MODELS / "fashion_test.npz",
        "--labels",
        MODELS / "fashion_test_labels.npy",
    ]
    assert run([str(token) for token in tokens]) == 0
    assert "91.45 % before, 91.45 % after" in capsys.readouterr().out


def test_sensitivity_shows_every_group(capsys, data):
    assert run(["sensitivity", str(LENET), "--data", str(data)]) == 0
    assert "/7/Gemm" in capsys.readouterr().out


def not_onnx(tmp):
    (tmp / "m.onnx").write_bytes(b"this is not a model")
    return tmp / "m.onnx"


def truncated(tmp):
    (tmp / "m.onnx").write_bytes(LENET.read_bytes()[:100_000])
    return tmp / "m.onnx"


def empty(tmp):
    (tmp / "m.onnx").write_bytes(b"")
    return tmp / "m.onnx"


def without_side_file(tmp):
    model = onnx.load(LENET)
    onnx.save(model, tmp / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp / "weights.bin").unlink()
    return tmp / "m.onnx"


def quantized(tmp):
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N, 4] x) => (float[N, 4] y)'
        " <float s = {0.1}, uint8 z = {0}> { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }"
    )
    onnx.save(model, tmp / "m.onnx")
    return tmp / "m.onnx"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (not_onnx, "not an ONNX model"),
        (truncated, "truncated"),
        (empty, "not an ONNX model"),
        (without_side_file, "side file"),
        (quantized, "prune the float model first"),
        (lambda tmp: tmp / "missing.onnx", "no such file"),
        (lambda tmp: tmp, "is a folder"),
    ],
)
def test_a_bad_model_is_one_line_and_exit_2(tmp_path, data, capsys, make, says):
    model, out = make(tmp_path), tmp_path / "small.onnx"
    assert says in error_of(capsys, 2, ["prune", model, out, "--data", data])
    assert not out.exists()


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"input": np.zeros((8, 1, 28, 27), np.float32)}, "has shape"),
        ({"input": np.zeros((8, 28, 28), np.float32)}, "has shape"),
        ({"input": np.full((8, 1, 28, 28), 0.1)}, ".astype(numpy.float32)"),
        ({"input": np.full((8, 1, 28, 28), 1j)}, "is complex128"),
        ({"image": np.zeros((8, 1, 28, 28), np.float32)}, "the model's inputs are 'input'"),
        ({"input": np.zeros((0, 1, 28, 28), np.float32)}, "no samples"),
        ({"input": np.full((8, 1, 28, 28), np.nan, np.float32)}, "NaN or infinity in sample 0"),
        ({"input": np.array([{}], dtype=object)}, "cannot be read"),
    ],
)
def test_bad_data_is_one_line_and_exit_2(tmp_path, capsys, arrays, says):
    np.savez(tmp_path / "x.npz", **arrays)
    out = tmp_path / "small.onnx"
    assert says in error_of(capsys, 2, ["prune", LENET, out, "--data", tmp_path / "x.npz"])
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--macs", "0.0001"], "the least is"),
        (["--macs", "1.5"], "between 0 and 1"),
        (["--macs", "0.5", "--params", "0.5"], "more than one budget"),
        (["--only", "nothing*"], "matches no group"),
        (["--exclude", "op:LSTM"], "matches no group"),
        (["--exclude", "*"], "nothing is left to prune"),
        (["--trials", "-1"], "--trials -1"),
        (["--trials", "5", "--channels", "0.5"], "--trials goes with --macs, --params or --latency"),
        (["--trials", "5", "--channels", "0.5"], "--trials goes with"),
        (["--unknown"], "--unknown"),
        (["--samples", "0"], "at least 1"),
        (["--round-to", "0"], "at least 1"),
        (["--memory", "much"], "not a size"),
        (["--selector", "best"], "best"),
        (["--latency", "1"], "between 0 and 1"),
        (["--max-drop", "0.01"], "needs a metric"),
        (["--max-drop", "-0.01", "--labels", LABELS], "makes no sense"),
        (["--max-drop", "1", "--labels", LABELS], "makes no sense"),
        (["--allocation", "threshold"], "needs a metric"),
        (["--labels", LABELS], "2000 labels for 64 samples"),
        (["--labels", LABELS, "--validate", "a.py:f"], "contradict"),
        (["--validate", "a.py"], "script.py:function"),
        (["--validate", "none.py:f"], "no such file"),
    ],
)
def test_a_bad_option_is_one_line_and_exit_2(tmp_path, data, capsys, options, says):
    out = tmp_path / "small.onnx"
    assert says in error_of(capsys, 2, ["prune", LENET, out, "--data", data, *options])
    assert not out.exists()


def test_an_existing_output_is_not_touched_without_force(tmp_path, data, capsys):
    out = tmp_path / "small.onnx"
    out.write_bytes(b"precious")
    assert "--force" in error_of(capsys, 2, ["prune", LENET, out, "--data", data])
    assert out.read_bytes() == b"precious"
    assert run(["prune", str(LENET), str(out), "--data", str(data), "--force", "--quiet"]) == 0
    onnx.checker.check_model(out)


def test_a_missing_folder_is_one_line_and_exit_2(tmp_path, data, capsys):
    assert "no such folder" in error_of(capsys, 2, ["prune", LENET, tmp_path / "none" / "small.onnx", "--data", data])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_one_line_and_exit_2(tmp_path, data, capsys):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    assert "cannot be written" in error_of(capsys, 2, ["prune", LENET, folder / "small.onnx", "--data", data])


def test_nothing_of_the_users_is_changed(tmp_path, data):
    model = tmp_path / "model.onnx"
    shutil.copy(LENET, model)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    out = tmp_path / "out"
    out.mkdir()
    assert run(["prune", str(model), str(out / "small.onnx"), "--data", str(data), "--quiet"]) == 0
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert [path.name for path in out.iterdir()] == ["small.onnx"]


def test_side_file_weights_leave_in_a_side_file(tmp_path, data):
    model = onnx.load(LENET)
    (tmp_path / "in").mkdir()
    onnx.save(model, tmp_path / "in" / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    out = tmp_path / "small.onnx"
    assert run(["prune", str(tmp_path / "in" / "m.onnx"), str(out), "--data", str(data), "--quiet"]) == 0
    assert (tmp_path / "small.onnx.data").exists()
    onnx.checker.check_model(str(out), full_check=True)


def test_help_teaches():
    text = subprocess.run(
        [sys.executable, "-m", "onnx_subprune", "prune", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "--macs" in text
    assert "test_data_set_" in text


def test_every_allocator_and_formulation_has_its_name_on_the_command_line():
    assert set(get_args(AllocatorName)) == set(ALLOCATORS)
    assert set(get_args(FormulationName)) == set(FORMULATIONS)


def test_inspect_counts_at_the_sizes_of_the_data_and_says_which_are_made_up(tmp_path, capsys):
    net = Net()
    x = net.relu(net.conv(net.input(["n", 1, "h", "w"]), 4, 3))
    scaled = net("Mul", x, net.input([1], "scale"))
    net.width[scaled] = 4
    net.head(scaled)
    model = str(tmp_path / "m.onnx")
    onnx.save(net.model(), model)
    np.savez(tmp_path / "x.npz", np.zeros((3, 1, 5, 7)))
    assert run(["inspect", model, "--set", "scale=0.5", "--json", str(tmp_path / "i.json")]) == 0
    assert "made up" in " ".join(capsys.readouterr().out.split())
    made_up = json.loads((tmp_path / "i.json").read_text())
    assert made_up["made_up"] == ["x"]
    data = ["--data", str(tmp_path / "x.npz"), "--set", "scale=0.5"]
    assert run(["inspect", model, *data, "--json", str(tmp_path / "i.json"), "--force"]) == 0
    seen = capsys.readouterr()
    assert "made up" not in seen.out
    assert seen.err.count("note:") == 1
    found = json.loads((tmp_path / "i.json").read_text())
    assert (found["macs"], found["made_up"]) == (5 * 7 * 9 * 4 + 4 * 5, [])
    assert found["sizes"] == {"x": [2, 1, 5, 7], "scale": [1]}
    assert run(["inspect", model, "--set", "speed=1"]) == 2
