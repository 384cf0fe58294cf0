"""Tables of what layers take: made here or elsewhere, and what a budget of latency makes of them."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_subprune import BudgetError, Gates, Latency, OptionError, Resources, Uniform, VerificationError, prune
from onnx_subprune.allocation.multilinear import Grid
from onnx_subprune.cli import run
from onnx_subprune.graph.costs import tables
from onnx_subprune.graph.costs.costs import costs
from onnx_subprune.graph.costs.milliseconds import milliseconds
from onnx_subprune.graph.costs.tables import made_here
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.budgets import latency
from onnx_subprune.runtime import profiler
from onnx_subprune.runtime.cache import cache_folder
from onnx_subprune.runtime.session import Runnable
from tests.networks.net import Net

IMAGES = np.random.default_rng(0).standard_normal((8, 3, 16, 16)).astype(np.float32)


def network(named=True):
    """Every kind of layer: plain, depthwise, grouped and transposed convolutions, dense ones; with a pointwise operator that is not fused."""
    net = Net()
    x = net.relu(net.conv(net.input(["n", 3, 16, 16]), 32, 3))
    x = net.relu(net.conv(net.relu(net.conv(x, 32, 3, group=32)), 48, 1))
    x = net("HardSwish", net.conv(x, 32, 3, group=2))
    x = net.relu(net.deconv(x, 16))
    net.output(net.dense(net.relu(net.linear(net("Flatten", net.gap(x)), 16, 24)), 24, 5), 2)
    model = net.model()
    if not named:
        for node in model.graph.node:
            node.name = ""
    return model


@pytest.fixture(scope="module")
def table():
    return json.loads(json.dumps(made_here(Runnable(network()), {"x": IMAGES}, threads=1, block=16)))


def test_a_table_has_every_layer_with_its_time_and_predicts_the_whole_at_full_widths(table):
    original = Network(network())
    graph = trace(original)
    assert set(table["layers"]) == {contraction.node for contraction in graph.contractions}
    assert all(layer["ms"] > 0.0 for layer in table["layers"].values())
    time = milliseconds(original, graph, table)
    assert time({}) == pytest.approx(table["total"])
    for group in graph.groups:
        options = np.arange(group.step, group.width + 1, group.step)
        changes = [time({group.name: int(width)}) - time({}) for width in options]
        assert time.changes(time.full, group.name, options) == pytest.approx(np.array(changes))


def test_what_is_no_layer_goes_with_its_numbers_and_what_lies_between_nodes_stays(table):
    original = Network(network())
    graph = trace(original)
    made = next(
        name for name, shape in graph.observation.shapes.items() if tuple(shape[1:2]) == (48,)
    )  # no other has 48
    group = next(group for group in graph.groups if any(part.axis.tensor == made for part in group.slices))
    other = next(item for item in graph.groups if item.name != group.name)
    shape, names = list(graph.observation.shapes[made]), {item.name: item.width // 2 for item in (group, other)}

    def time(rows):
        bare = {**table, "layers": {}, "shapes": [], "fixed": 3.0, "others": rows}
        found = milliseconds(original, graph, bare)
        return [
            found(widths) - 3.0 for widths in ({}, {group.name: names[group.name]}, {other.name: names[other.name]})
        ]

    assert time([{"tensor": made, "shape": shape, "ms": 4.0}]) == pytest.approx([4.0, 2.0, 4.0])
    fused_elsewhere = [{"tensor": "", "shape": [64, *shape[1:]], "ms": 4.0}]  # at another batch
    assert time(fused_elsewhere) == pytest.approx([4.0, 2.0, 4.0])
    assert time([{"tensor": "", "shape": [1, 7, 7, 7], "ms": 4.0}])[0] == pytest.approx(4.0)
    assert time([]) == [0.0, 0.0, 0.0]


def test_products_of_activations_go_with_what_they_sum_up_too():
    net = Net()
    x = net.input(["n", 6, 8])
    query, key = net.linear(x, 8, 16), net.linear(x, 8, 16)
    net.output(net("MatMul", query, net("Transpose", key, perm=[0, 2, 1])), 3)
    original = Network(net.model())
    graph = trace(original)
    made, group = original.outputs[0], graph.groups[0]
    bare = {"version": 2, "block": 16, "layers": {}, "shapes": [], "fixed": 0.0, "rest": 1.0}
    found = milliseconds(original, graph, {**bare, "others": [{"tensor": made, "shape": [2, 6, 6], "ms": 4.0}]})
    assert [found({}), found({group.name: group.width // 4})] == pytest.approx([4.0, 1.0])


def test_a_layer_without_channels_takes_no_time(table):
    original = Network(network())
    graph = trace(original)
    time = milliseconds(original, graph, table)
    first = graph.groups[0]
    spent = sum(table["layers"][node]["ms"] for node in {*first.producers, *(c.node for c in first.consumers)})
    assert time({first.name: 0}) <= time({}) - spent + 1e-9


def test_nodes_without_names_are_known_by_what_they_make(table):
    found = made_here(Runnable(network(named=False)), {"x": IMAGES}, threads=1, block=16)
    assert set(found["layers"]) == {c.node for c in trace(Network(network(named=False))).contractions}


def test_between_sizes_a_grid_is_linear_and_beyond_them_constant():
    grid = Grid((4.0, 8.0), (10.0, 20.0), ((1.0, 2.0), (3.0, 4.0)))
    sizes = np.array([4.0, 6.0, 8.0, 9.0, 0.0, 8.0]), np.array([10.0, 15.0, 30.0, 5.0, 10.0, 0.0])
    assert grid.at(*sizes) == pytest.approx(np.array([1.0, 2.5, 4.0, 3.0, 0.0, 0.0]))


def test_the_profiler_runs_where_there_is_nothing_but_numpy_and_onnxruntime(tmp_path):
    folder = Path(profiler.__file__).parent
    (tmp_path / "profiler").mkdir()
    for file in folder.glob("*.py"):
        (tmp_path / "profiler" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "block.py").write_text(
        "import runpy, sys\n"
        "for name in ('onnx', 'scipy', 'onnx_subprune', 'google', 'rich'):\n"
        "    sys.modules[name] = None\n"
        "runpy.run_module('profiler', run_name='__main__')\n"
    )
    onnx.save(network(), tmp_path / "m.onnx")
    words = [sys.executable, "block.py", "m.onnx", "-o", "t.json", "--batch", "2"]
    done = subprocess.run(words, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / "t.json").read_text())["layers"]) == 7


def test_a_table_from_elsewhere_decides_and_nothing_is_measured_here(table, tmp_path):
    (tmp_path / "t.json").write_text(json.dumps(table))
    budget = Latency(0.6, table=str(tmp_path / "t.json"))
    found = prune(network(), IMAGES, budget=budget, allocator=Uniform(), refit=None)
    assert found.report.latency is None
    original = Network(network())
    time = milliseconds(original, trace(original), table)
    widths = {group.name: group.width[1] for group in found.report.groups}
    assert time(widths) <= 0.6 * time({})
    other = Net()
    other.output(other.dense(other.relu(other.dense(other.input(["n", 4]), 4, 8)), 8, 2), 2)
    with pytest.raises(OptionError, match="of another model"):
        prune(other.model(), np.zeros((8, 4), np.float32), budget=budget, refit=None)


def test_a_table_is_kept_for_the_same_layers_and_made_again_for_others_or_when_it_is_old(tmp_path, monkeypatch):
    made = []

    def counted(*places, **words):
        made.append(1)
        return {"version": tables.VERSION, "number": len(made)}

    monkeypatch.setattr(tables, "made_here", counted)

    def number(model=None, images=IMAGES, threads=1):
        return tables.kept_here(Runnable(model or network()), {"x": images}, threads=threads, block=16)["number"]

    assert (number(), number()) == (1, 2)  # nothing is kept where the user wants it so
    monkeypatch.setenv("ONNX_SUBPRUNE_CACHE", str(tmp_path / "deep" / "cache"))
    assert (number(), number()) == (3, 3)
    other = network()
    for tensor in other.graph.initializer:
        tensor.raw_data = bytes(len(tensor.raw_data))
    assert number(other) == 3  # no weight takes longer than another one
    other.graph.node[0].name = "another"
    assert [number(other), number(images=IMAGES[:2]), number(threads=2), number()] == [4, 5, 6, 3]
    for file in (tmp_path / "deep" / "cache").iterdir():
        file.write_text("[")
    assert (number(), number()) == (7, 7)
    for file in (tmp_path / "deep" / "cache").iterdir():
        os.utime(file, (0, 0))
    assert (number(), number()) == (8, 8)
    assert len([*(tmp_path / "deep" / "cache").iterdir()]) == 1  # the others were old
    (tmp_path / "file").touch()
    monkeypatch.setenv("ONNX_SUBPRUNE_CACHE", str(tmp_path / "file"))
    assert (number(), number()) == (9, 10)  # where nothing can be kept


def test_a_budget_of_latency_takes_the_kept_table_and_another_one_if_it_is_named(table, tmp_path, monkeypatch):
    monkeypatch.setenv("ONNX_SUBPRUNE_CACHE", str(tmp_path))
    settings = {"allocator": Uniform(), "refit": None, "resources": Resources(threads=1, holdout=0)}
    settings["gates"] = Gates(accept_any=True)  # how much is cut, and lost, is up to what the layers took
    onnx.save(network(), tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", IMAGES)
    words = ["--data", str(tmp_path / "x.npy"), "--threads", "1", "-o", str(tmp_path / "t.json"), "--quiet"]
    assert run(["profile", str(tmp_path / "m.onnx"), *words]) == 0
    monkeypatch.setattr(tables, "made_here", None)
    monkeypatch.setattr(latency, "LONG", 0.02)
    with suppress(BudgetError, VerificationError):  # this short, nothing is sure
        assert prune(network(), IMAGES, budget=Latency(0.9), **settings).report.latency is not None
    monkeypatch.setattr(latency, "kept_here", None)
    budget = Latency(0.6, table=str(tmp_path / "t.json"))
    assert prune(network(), IMAGES, budget=budget, **settings).report.latency is None


@pytest.mark.parametrize(
    ("system", "settings", "folder"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/onnx-subprune"),
        ("linux", {"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache/onnx-subprune"),
        ("linux", {"XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/onnx-subprune"),
        ("darwin", {"HOME": "/h"}, "/h/Library/Caches/onnx-subprune"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/onnx-subprune/Cache"),
        ("linux", {"ONNX_SUBPRUNE_CACHE": "/own", "XDG_CACHE_HOME": "/x"}, "/own"),
    ],
)
def test_the_cache_lies_where_the_platform_wants_it(monkeypatch, system, settings, folder):
    monkeypatch.delenv("ONNX_SUBPRUNE_CACHE")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", system)
    assert cache_folder() == Path(folder)


def test_the_users_own_command_measures(tmp_path, capsys):
    onnx.save(network(), tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", IMAGES)
    (tmp_path / "size.py").write_text("import os, sys\nprint('ms:', os.path.getsize(sys.argv[1]))\n")
    words = [
        "prune",
        str(tmp_path / "m.onnx"),
        str(tmp_path / "o.onnx"),
        "--data",
        str(tmp_path / "x.npy"),
        "--no-refit",
    ]
    words += ["--allocation", "uniform", "--quiet"]
    command = ["--measure", f"{sys.executable} {tmp_path}/size.py {{model}}"]
    assert run([*words, "--speedup", "1.6", *command]) == 0
    assert (tmp_path / "o.onnx").stat().st_size <= (tmp_path / "m.onnx").stat().st_size / 1.6
    assert run([*words, "--macs", "0.5", *command, "--force"]) == 2
    assert "go with --latency" in capsys.readouterr().err
    assert run([*words, "--speedup", "1.6", "--measure", "echo soon", "--force"]) == 2
    assert "has to print milliseconds" in capsys.readouterr().err


@pytest.mark.parametrize("always", [False, True])
def test_a_model_that_is_beyond_its_bound_is_made_once_more_with_less_and_else_nothing_is(monkeypatch, always):
    """A machine that counts parameters, and on which the first model, or every one, takes longer when it is whole."""
    seen, slow = list[float](), list[float]()

    def spent(command, model, folder):
        size = sum(np.prod(tensor.dims, dtype=float) for tensor in model.graph.initializer)
        if size in seen[1:] and size < seen[0] and (always or not slow):
            slow.append(size)
        seen.append(size)
        return size * (1.1 if slow and slow[-1] == size else 1.0)

    monkeypatch.setattr(latency, "milliseconds_by", spent)
    monkeypatch.setattr(latency, "_price", lambda task, table: costs(task.network, task.graph).params)
    budget = Latency(0.6, measure="any")
    settings = {"budget": budget, "allocator": Uniform(), "refit": None, "round_to": 1}
    if always:
        with pytest.raises(VerificationError, match="misses its bound"):
            prune(network(), IMAGES, **settings)
        assert len(slow) == 2
    else:
        found = prune(network(), IMAGES, **settings)
        assert 0.54 < found.report.latency.ratio == seen[-1] / seen[0] <= 0.97 * 0.6
        assert [0.57 * seen[0] < size <= 0.594 * seen[0] for size in slow] == [True]


def test_profile_writes_a_table(tmp_path):
    onnx.save(network(), tmp_path / "m.onnx")
    assert run(["profile", str(tmp_path / "m.onnx"), "-o", str(tmp_path / "t.json")]) == 0
    assert len(json.loads((tmp_path / "t.json").read_text())["layers"]) == 7
