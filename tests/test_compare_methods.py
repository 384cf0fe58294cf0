"""The tool that compares methods: its parts, and the whole of it on a small model."""

import importlib.util
import json

import numpy as np
import pytest

from onnx_subprune import Channels, Macs, Params
from onnx_subprune.graph.network import load
from onnx_subprune.runtime.session import Session
from onnx_subprune.selection import Forward, Problem
from tests.conftest import MODELS, sample_models
from tools.benchmark_recurrent import network, ratios
from tools.compare_methods import main, subsets, told, with_finetuning
from tools.compare_recurrent import Spectral
from tools.peers import Priced, peers, within
from tools.rows import Case, Method, scorer_of

TEST = ["--test", str(MODELS / "fashion_test.npz"), "--labels", str(MODELS / "fashion_test_labels.npy")]


def test_each_method_has_a_row_with_fine_tuning_where_that_is_asked_for():
    rows = with_finetuning({"a": Method(selector="weight-norm", reads=False), "b": lambda case, budget, seed: None}, 7)
    assert [*rows] == ["a", "a, fine-tuned", "b"]
    assert rows["a, fine-tuned"] == Method(selector="weight-norm", finetune=7)


def test_subsets_are_disjoint_where_there_is_enough_data():
    arrays = {"x": np.arange(100), "y": -np.arange(100)}
    found = list(subsets(arrays, 3, 30))
    assert [len(part["x"]) for part in found] == [30, 30, 30]
    assert len(set(np.concatenate([part["x"] for part in found]).tolist())) == 90
    assert all(np.array_equal(part["x"], -part["y"]) for part in found)


def test_subsets_overlap_where_there_is_not_but_never_repeat_a_sample():
    found = list(subsets({"x": np.arange(10)}, 3, 6))
    assert [len(set(part["x"].tolist())) for part in found] == [6, 6, 6]


def test_one_subset_is_the_first_samples_as_the_command_line_takes_them():
    (only,) = subsets({"x": np.arange(10)}, 1, 4)
    assert only["x"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("budget", "share"), [(Channels(0.3), 0.7), (Macs(0.49), 0.3), (Params(0.75), 0.25)])
def test_the_share_that_a_peer_removes_is_the_smallest_within_the_budget(budget, share):
    found = within(lambda removed: Priced(removed, (1 - removed) ** 2, 1 - removed), Priced(0.0, 1.0, 1.0), budget)
    assert found.model == pytest.approx(share, abs=1e-3)
    assert found.model >= share - 1e-9


def test_a_peer_that_cannot_reach_the_budget_says_how_far_it_gets():
    with pytest.raises(ValueError, match="keeps 60 % at least"):
        within(lambda removed: Priced(removed, max(0.6, 1 - removed), 1.0), Priced(0.0, 1.0, 1.0), Macs(0.5))


def test_the_comparison_writes_means_and_spreads_and_draws_them(tmp_path, capsys):
    data = ["--data", str(MODELS / "fashion_calibration.npz"), "--samples", "32", "--subsets", "2", "--seeds", "2"]
    rows = ["--methods", "random, no refit", "taylor, paper", "weight-norm, no refit"]
    files = ["--json", str(tmp_path / "r.json"), "--plot", str(tmp_path / "r.png")]
    main([str(MODELS / "lenet_fashion.onnx"), *data, *TEST, "--channels", "0.5", "--macs", "0.02", *rows, *files])
    (found,) = json.loads((tmp_path / "r.json").read_text())["models"].values()
    row = {name: cells["channels 0.5"] for name, cells in found["rows"].items()}
    assert {name: len(cell["runs"]) for name, cell in row.items()} == {
        "random, no refit": 2,  # the seeds
        "taylor, paper's refit": 2,  # the subsets
        "weight-norm, no refit": 1,
    }
    for cell in row.values():
        assert cell["accuracy"] == pytest.approx(np.mean(cell["runs"]))
        assert cell["spread"] == pytest.approx(np.std(cell["runs"]))
        assert 0.2 < cell["macs"] < 0.5
    assert row["taylor, paper's refit"]["accuracy"] > row["random, no refit"]["accuracy"]
    unreachable = found["rows"]["random, no refit"]["macs 0.02"]
    assert unreachable["error"].startswith("BudgetError")
    assert told(unreachable)[:20] in capsys.readouterr().out
    assert (tmp_path / "r.png").stat().st_size > 10_000


@pytest.mark.skipif(not importlib.util.find_spec("onnxsim"), reason="onnxsim is not installed")
@pytest.mark.parametrize("name", ["onnxsim, L2 norm", "onnxsim, wanda"])
def test_onnxsim_is_a_row_within_the_budget(name, few):
    outcome = peers()[name](Case(model=MODELS / "resnet_fashion.onnx", data={"input": few}), Macs(0.8), 0)
    assert outcome.macs <= 0.8
    assert outcome.scorer({"input": few}).shape == (64, 10)


@pytest.mark.skipif(not importlib.util.find_spec("torch_pruning"), reason="Torch-Pruning is not installed")
@pytest.mark.parametrize("path", sample_models(), ids=lambda path: path.stem)
def test_torch_pruning_is_a_row_within_the_budget(path, few):
    outcome = peers()["Torch-Pruning, L2 norm by group"](Case(model=path, data={"input": few}), Macs(0.8), 0)
    assert outcome.macs <= 0.8
    assert outcome.scorer({"input": few}).shape == (64, 10)


@pytest.mark.parametrize("path", sample_models(), ids=lambda path: path.stem)
def test_the_pytorch_module_computes_what_the_onnx_model_does(path, few):
    torch = pytest.importorskip("torch")
    from tools.torch_module import Module  # noqa: PLC0415 - needs PyTorch

    with torch.no_grad():
        theirs = Module(load(path)).eval()(torch.tensor(few[:8])).numpy()
    assert theirs == pytest.approx(scorer_of(Session(path))({"input": few[:8]}), abs=1e-3)


def test_spectral_selection_keeps_the_units_that_explain_the_states_of_all_whatever_reads_them():
    states = np.random.default_rng(0).standard_normal((200, 5)) * [3.0, 0.1, 2.0, 0.1, 1.0]
    states[:, 4] = states[:, 0] + 0.01 * states[:, 4]  # a copy
    gram, read = states.T @ states, np.eye(5)[:, [1, 3]]
    problem = Problem(
        gram=gram,
        cross=gram @ read,
        energy=float(np.trace(read.T @ gram @ read)),
        columns=np.arange(5)[:, None],
        prior=read,
    )
    found = {size: Spectral().path([problem], [size], np.zeros(5, np.int64))[0].support for size in (2, 3)}
    assert 2 in found[2]
    assert len({0, 4} & {*found[2]}) == 1
    assert {1, 3} & {*found[3]}
    assert Forward().path([problem], [2], np.zeros(5, np.int64))[0].support == (1, 3)


def test_the_benchmark_of_recurrent_layers_counts_what_its_models_multiply():
    model = network("LSTM", (3, 2, 4), 8, 2)
    feeds = {"x": np.zeros((3, 2, 4), np.float32)}
    _, macs, work = ratios(model, 0.5, feeds, 0.01)
    whole, half = (2 * (4 * units * (4 + units)) + 2 * units * 8 for units in (8, 4))
    assert macs == pytest.approx(half / whole)
    assert macs < work < 1.0
