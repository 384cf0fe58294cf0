"""What commands write: checked together before any work, never in the place of what is read, whole or not at all."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_subprune.cli import run
from onnx_subprune.graph.save import save_model
from tests.small import fill

X = np.random.default_rng(1).standard_normal((16, 12)).astype(np.float32)


def network():
    generator = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gemm", ["x", "w0", "b0"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w1"], ["y"]),
    ]
    shapes = {"w0": (12, 32), "b0": (32,), "w1": (32, 8)}
    weights = [numpy_helper.from_array(generator.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]
    for tensor in weights:
        tensor.metadata_props.add(key="from", value=f"layer of {tensor.name}")
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size]) for name, size in (("x", 12), ("y", 8))
    ]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a model in two files, and data."""
    monkeypatch.chdir(tmp_path)
    onnx.save(network(), "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    np.savez("x.npz", x=X)
    np.save("labels.npy", np.zeros(16, np.int64))
    return tmp_path


def prune(*options, output="o.onnx", share="0.5"):
    tokens = ["prune", "m.onnx", output, "--data", "x.npz", "--channels", share, "--threads", "1", "--quiet", *options]
    return run([str(token) for token in tokens])


def contents(folder):
    return {path.name: path.read_bytes() if path.is_file() else None for path in folder.iterdir()}


def outputs_of(path):
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": X})[0]


@pytest.mark.parametrize("force", [(), ("--force",)])
@pytest.mark.parametrize(
    "options",
    [
        ("--json", "o.onnx"),
        ("--json", "./o.onnx"),
        ("--json", "o.onnx.data"),
        ("--json", "m.onnx"),
        ("--json", "w.bin"),
        ("--json", "x.npz"),
        ("--json", "hard"),
        ("--labels", "labels.npy", "--json", "labels.npy"),
        ("--json", "same.json", "--report", "same.json"),
        ("--report", "x.npz"),
    ],
    ids=" ".join,
)
def test_no_two_files_of_a_command_are_one(here, capsys, options, force):
    os.link("x.npz", "hard")
    before = contents(here)
    assert prune(*options, *force) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert contents(here) == before


@pytest.mark.parametrize("force", [(), ("--force",)])
@pytest.mark.parametrize("output", ["m.onnx", "w.bin", "x.npz", "sub/../m.onnx"])
def test_what_is_read_is_never_written_to(here, output, force):
    (here / "sub").mkdir()
    before = contents(here)
    assert prune(*force, output=output) == 2
    assert contents(here) == before


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_the_side_file_of_the_original_is_never_that_of_the_result(here, force):
    onnx.save(network(), "m.onnx", save_as_external_data=True, location="o.onnx.data", size_threshold=0)
    before = contents(here)
    assert prune(*force) == 2
    assert contents(here) == before


@pytest.mark.parametrize("name", ["o.onnx", "o.onnx.data", "o.json", "o.html"])
def test_no_file_that_is_there_is_overwritten_unasked(here, capsys, name):
    (here / name).write_bytes(b"precious")
    before = contents(here)
    assert prune("--json", "o.json", "--report", "o.html") == 2
    assert "--force" in capsys.readouterr().err
    assert contents(here) == before


@pytest.mark.parametrize("command", ["inspect", "sensitivity", "compare", "collect", "merge"])
def test_every_command_that_writes_spares_what_it_reads_and_what_is_there(here, command):
    collected = ["collect", "m.onnx", "--data", "x.npz", "--threads", "1", "--quiet"]
    assert run([*collected, "-o", "s.npz"]) == 0
    tokens = {
        "inspect": ["inspect", "m.onnx", "--json"],
        "sensitivity": ["sensitivity", "m.onnx", "--data", "x.npz", "--quiet", "--json"],
        "compare": ["compare", "m.onnx", "m.onnx", "--data", "x.npz", "--json"],
        "collect": [*collected, "-o"],
        "merge": ["merge", "s.npz", "-o"],
    }[command]
    reads = ["s.npz"] if command == "merge" else ["m.onnx", "w.bin", *["x.npz"] * (command != "inspect")]
    (here / "there").write_bytes(b"precious")
    before = contents(here)
    for name in reads:
        assert run([*tokens, name, "--force"]) == 2
    assert run([*tokens, "there"]) == 2
    assert contents(here) == before


def make_fifo(path):
    os.mkfifo(path)


def make_link(path):
    path.with_name("real").write_bytes(b"real")
    path.symlink_to("real")


def make_dangling(path):
    path.symlink_to("nowhere")


def make_folder(path):
    path.mkdir()


@pytest.mark.parametrize("option", ["o.onnx", "o.onnx.data", "--json"])
@pytest.mark.parametrize("make", [make_fifo, make_link, make_dangling, make_folder])
def test_force_replaces_regular_files_only(here, make, option):
    path = here / ("o.json" if option == "--json" else option)
    make(path)
    before = os.lstat(path)
    for force in ((), ("--force",)):
        assert prune("--json", "o.json", *force) == 2
        assert os.lstat(path).st_ino == before.st_ino
        assert os.lstat(path).st_mode == before.st_mode
    assert not (here / "nowhere").exists()
    assert make is not make_link or (here / "real").read_bytes() == b"real"


def test_force_keeps_mode_bits(here):
    names = ("o.onnx", "o.onnx.data", "o.json")
    for name in names:
        (here / name).write_bytes(b"old")
        os.chmod(name, 0o640)
    assert prune("--json", "o.json", "--force") == 0
    assert [stat.S_IMODE(os.stat(name).st_mode) for name in names] == [0o640] * 3
    json.loads((here / "o.json").read_text())


def test_a_report_that_cannot_be_written_leaves_no_model(here, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onnx_subprune.cli.files.json_text", fail)
    before = contents(here)
    assert prune("--json", "o.json") == 2
    assert contents(here) == before


def test_metadata_of_sliced_weights_survives_in_the_file_and_beside_it(here):
    for name in ("beside.onnx", "inside.onnx"):
        if name == "inside.onnx":
            onnx.save(network(), "m.onnx")
        assert prune(output=name) == 0
        found = onnx.load(here / name, load_external_data=False).graph.initializer
        assert {t.name: t.metadata_props[0].value for t in found} == {n: f"layer of {n}" for n in ("w0", "b0", "w1")}


@pytest.mark.parametrize("beside", [True, False])
def test_bytes_are_those_of_the_files(here, beside):
    if not beside:
        onnx.save(network(), "m.onnx")

    def size(name):
        return sum(
            (here / file).stat().st_size
            for file in (name, "w.bin" * (name == "m.onnx"), f"{name}.data")
            if (here / file).is_file()
        )

    if not beside:
        (here / "w.bin").unlink()
    assert prune("--json", "r.json", output="a_longer_name.onnx", share="0.95") == 0
    assert (here / "a_longer_name.onnx.data").is_file() == beside
    sizes = {"before": size("m.onnx"), "after": size("a_longer_name.onnx")}
    assert json.loads((here / "r.json").read_text())["cost"]["bytes"] == sizes
    assert run(["compare", "m.onnx", "a_longer_name.onnx", "--data", "x.npz", "--quiet", "--json", "c.json"]) == 0
    assert json.loads((here / "c.json").read_text())["cost"]["bytes"] == sizes


KILLER = """
import os, signal, sys
deadly, count = int(sys.argv[1]), 0

def wrapped(real):
    def call(*args, **kwargs):
        global count
        count += 1
        if count == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call

import onnx
from pathlib import Path
from onnx_subprune.graph.save import save_model
for name in ("replace", "rename", "link", "unlink", "fsync", "chmod"):
    setattr(os, name, wrapped(getattr(os, name)))
for deadly in range(1, 100):
    count, child = 0, os.fork()
    if child == 0:
        save_model(onnx.load("new/o.onnx"), None, Path(f"{deadly}.onnx"), side_file=True)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
print(deadly)
"""


def test_whenever_it_is_killed_there_is_the_old_pair_or_the_new_one(here):
    for name, scale in (("old", 1), ("new", 2)):
        model = network()
        for tensor in model.graph.initializer:
            tensor.CopyFrom(numpy_helper.from_array(scale * numpy_helper.to_array(tensor), tensor.name))
        (here / name).mkdir()
        save_model(model, None, here / name / "o.onnx", side_file=True)
    pairs = {name: outputs_of(here / name / "o.onnx").tobytes() for name in ("old", "new")}
    old = onnx.load(here / "old" / "o.onnx")
    for number in range(1, 30):
        save_model(old, here, here / f"{number}.onnx", side_file=True)
    done = subprocess.run([sys.executable, "-c", KILLER, "1"], capture_output=True, text=True, check=True)
    kills = int(done.stdout)
    assert 8 < kills < 29
    found = [outputs_of(here / f"{number}.onnx").tobytes() for number in range(1, kills + 1)]
    assert found == sorted(found, key=[pairs["old"], pairs["new"]].index)
    assert found[0] == pairs["old"]
    assert found[-1] == pairs["new"]
    assert sorted(path.name for path in here.glob(f"{kills}.onnx*")) == [f"{kills}.onnx", f"{kills}.onnx.data"]


def test_what_a_killed_process_left_in_use_goes_with_the_next_pair(here):
    model = network()
    save_model(model, None, here / "o.onnx", side_file=True)
    os.rename("o.onnx.data", "o.onnx.data.0123abcd")
    light = onnx.load("o.onnx", load_external_data=False)
    for tensor in light.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "o.onnx.data.0123abcd" if entry.key == "location" else entry.value
    onnx.save(light, "o.onnx")
    (here / "o.onnx.data").write_bytes(b"")
    save_model(model, None, here / "o.onnx", side_file=True)
    assert sorted(path.name for path in here.glob("o.onnx*")) == ["o.onnx", "o.onnx.data"]
    outputs_of(here / "o.onnx")


INTERRUPTED = """
import os, signal, sys
import onnx_subprune.cli.prune as command
from onnx_subprune.cli import main
from onnx_subprune.pruning.result import Pruned
number, when = int(sys.argv[1]), sys.argv[2]
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
save, prune = Pruned.save, command.prune

def signalled(call, before):
    def wrapped(*args, **kwargs):
        if before:
            os.kill(os.getpid(), number)
        found = call(*args, **kwargs)
        os.kill(os.getpid(), number)
        return found
    return wrapped

if when == "early":
    command.prune = signalled(prune, True)
else:
    Pruned.save = signalled(save, False)
sys.argv = ["onnx-subprune", *sys.argv[3:]]
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("when", "says"), [("early", "nothing was written"), ("late", "o.onnx, o.onnx.data were written")]
)
def test_an_interrupted_command_says_what_it_left_behind(here, number, when, says):
    command = ["prune", "m.onnx", "o.onnx", "--data", "x.npz", "--channels", "0.5", "--threads", "1", "--quiet"]
    before = set(contents(here))
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(int(number)), when, *command, "--json", "o.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == f"error: interrupted; {says}\n"
    assert done.returncode == 130
    assert set(contents(here)) - before == ({"o.onnx", "o.onnx.data"} if when == "late" else set())


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (IndexError("odd"), 3, "internal error: IndexError at prune.py:"),
        (MemoryError(), 2, "out of memory; nothing was written"),
        (OSError(28, "No space left on device", "full/y"), 2, "full/y: No space left on device; nothing was written"),
        (RecursionError("deep"), 3, "internal error: RecursionError"),
        (KeyboardInterrupt(), 130, "interrupted; nothing was written"),
    ],
    ids=repr,
)
def test_whatever_happens_is_one_line_and_leaves_nothing(here, capsys, monkeypatch, error, status, says):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("onnx_subprune.cli.prune.prune", fail)
    before = contents(here)
    assert prune() == status
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {says}")
    assert contents(here) == before


def test_an_archive_that_unpacks_to_more_than_the_memory_is_refused_and_its_first_samples_are_not(here, capsys):
    np.savez_compressed("x.npz", x=np.concatenate([X, np.zeros((400_000, 12), np.float32)]))
    assert prune("--memory", "8M") == 2
    assert "--memory: use the first --samples" in capsys.readouterr().err
    assert prune("--memory", "8M", "--samples", "16") == 0


def test_who_reads_the_table_may_stop_reading(here):
    command = f"{sys.executable} -m onnx_subprune inspect m.onnx | true"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_table_of_times_and_arrays_of_constants_are_read_and_spared(here):
    np.save("c.npy", X)
    (here / "table.json").write_text("{}")
    before = contents(here)
    assert prune("--table", "table.json", "--json", "table.json", "--force") == 2
    assert prune("--set", "x=c.npy", "--json", "c.npy", "--force") == 2
    assert contents(here) == before


def test_collect_and_merge_tell_what_their_files_have(tmp_path):
    fill(tmp_path)
    model, data = str(tmp_path / "model.onnx"), str(tmp_path / "calibration.npz")
    shards = [str(tmp_path / f"{number}.moments") for number in (1, 2)]
    for number, shard in enumerate(shards, 1):
        words = ["--data", data, "--shard", f"{number}/2", "-o", shard, "--json", f"{shard}.json", "--quiet"]
        assert run(["collect", model, *words]) == 0
    assert run(["merge", *shards, "-o", str(tmp_path / "all.moments"), "--json", str(tmp_path / "all.json")]) == 0
    first, whole = (json.loads(Path(file).read_text()) for file in (f"{shards[0]}.json", tmp_path / "all.json"))
    assert (first["shard"], whole["shard"], whole["samples"]) == ([1, 2], None, 64)
    assert whole["bytes"] == (tmp_path / "all.moments").stat().st_size
    assert whole["layers"] == first["layers"] != []
    assert run(["merge", *shards, "-o", str(tmp_path / "b.moments"), "--json", shards[0], "--force"]) == 2


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
from onnx_subprune.cli import run
sys.exit(run(sys.argv[2:]))
"""


def test_a_full_disk_is_one_line_where_temporary_files_find_no_room(here):
    words = ["prune", "m.onnx", "o.onnx", "--data", "x.npz", "--channels", "0.5", "--threads", "1", "--quiet"]
    done = subprocess.run([sys.executable, "-c", FULL, "2000", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "set TMPDIR" in done.stderr
    assert sorted(path.name for path in here.iterdir()) == ["labels.npy", "m.onnx", "w.bin", "x.npz"]
