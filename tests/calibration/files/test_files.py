"""Shards, merged, give what the whole gives; whatever does not belong together is refused in one line."""

import itertools
import json
import zipfile

import numpy as np
import onnx
import pytest

from onnx_subprune import Channels, Layerwise, Macs, Resources, collect, merge, prune, prune_collected
from onnx_subprune.calibration.files.sums import Sums
from onnx_subprune.cli import run
from onnx_subprune.errors import DataError, OptionError
from tests.conftest import MODELS, sample_models

LENET, DENSE, RESNET = (MODELS / f"{name}_fashion.onnx" for name in ("lenet", "lenet_300_100", "resnet"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory, images):
    """The files of three shards of 160 samples, five chunks, and the file of all of them at once."""
    folder = tmp_path_factory.mktemp("shards")
    for number in (1, 2, 3):
        collect(LENET, images[:160], folder / f"{number}.npz", shard=(number, 3))
    collect(LENET, images[:160], folder / "whole.npz")
    return folder


def error_of(capsys, tokens):
    assert run([str(token) for token in tokens]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3))), ids=str)
def test_merged_shards_are_the_bytes_of_a_single_one_in_whatever_order_they_are_named(tmp_path, shards, order):
    merge([shards / f"{number}.npz" for number in order], tmp_path / "m.npz")
    assert (tmp_path / "m.npz").read_bytes() == (shards / "whole.npz").read_bytes()


@pytest.mark.parametrize("model", sample_models(), ids=lambda path: path.stem)
@pytest.mark.parametrize("count", [2, 5])
def test_the_pruned_model_does_not_depend_on_the_number_of_shards(tmp_path, images, model, count):
    data, files = images[:93], [tmp_path / f"{number}.npz" for number in range(count)]
    for number, path in enumerate(files):
        collect(model, data, path, shard=(number, count), resources=Resources(threads=1 + number % 2))
    merge(files, tmp_path / "m.npz")
    collect(model, data, tmp_path / "w.npz")
    found = [prune_collected(model, tmp_path / name, budget=Macs(0.4)).model for name in ("m.npz", "w.npz")]
    assert found[0].SerializeToString() == found[1].SerializeToString()


def test_sums_of_any_partition_are_the_same_bytes_even_where_everything_cancels():
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((24, 5000)) * np.exp(4 * rng.standard_normal((24, 1)))).astype(np.float32)
    values[12:] = -values[:12]
    values[0] += np.float32(1e-3)

    def state(rows):
        return {"count": np.array(len(rows)), "shape": np.array([3]), **summed(rows)}

    def summed(rows):
        total = Sums()
        for row in rows:
            wide = row.astype(np.float64)
            total.add({"count": np.array(1), "shape": np.array([3]), "gram.hi": wide, "gram.lo": np.zeros_like(wide)})
        return {name: array for name, array in total.state().items() if name.startswith("gram")}

    results = []
    for seed, cuts in enumerate(([24], [7, 24], [1, 2, 3, 20, 24], list(range(1, 25)))):
        order = np.random.default_rng(seed).permutation(24)
        total = Sums()
        for start, stop in itertools.pairwise([0, *cuts]):
            total.add(state(values[order[start:stop]]))
        results.append({name: array.tobytes() for name, array in total.state().items()})
    assert all(result == results[0] for result in results)


def test_layerwise_pruning_is_the_same_from_moments_and_from_data(tmp_path, images):
    collect(RESNET, images[:160], tmp_path / "s.npz")
    one = prune_collected(RESNET, tmp_path / "s.npz", budget=Channels(0.5))
    other = prune(RESNET, images[:160], budget=Channels(0.5), formulation=Layerwise(), resources=Resources(holdout=0))
    for ours, theirs in zip(one.report.groups, other.report.groups, strict=True):
        assert ours.kept == theirs.kept
    for ours, theirs in zip(one.model.graph.initializer, other.model.graph.initializer, strict=True):
        a, b = (onnx.numpy_helper.to_array(tensor) for tensor in (ours, theirs))
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * max(1e-30, float(np.abs(b).max())))


def test_a_pass_over_the_data_for_every_few_layers_gives_the_same_choices(tmp_path, images):
    collect(LENET, images[:96], tmp_path / "one.npz")
    collect(LENET, images[:96], tmp_path / "many.npz", resources=Resources(memory=1))
    one, many = (prune_collected(LENET, tmp_path / f"{name}.npz") for name in ("one", "many"))
    assert [group.kept for group in one.report.groups] == [group.kept for group in many.report.groups]
    collect(LENET, images[:96], tmp_path / "a.npz", shard=(1, 2))
    collect(LENET, images[:96], tmp_path / "b.npz", shard=(2, 2), resources=Resources(memory=1))
    with pytest.raises(DataError, match="passes"):
        merge([tmp_path / "a.npz", tmp_path / "b.npz"], tmp_path / "m.npz")


def test_the_command_line_goes_from_shards_to_a_verified_model(tmp_path, images, capsys):
    np.savez(tmp_path / "x.npz", input=images[:128])
    for number in (1, 2):
        tokens = [
            "collect",
            LENET,
            "--data",
            tmp_path / "x.npz",
            "--shard",
            f"{number}/2",
            "-o",
            tmp_path / f"{number}",
        ]
        assert run([str(token) for token in tokens]) == 0
    assert run(["merge", str(tmp_path / "2"), str(tmp_path / "1"), "-o", str(tmp_path / "m.npz")]) == 0
    out, report = tmp_path / "small.onnx", tmp_path / "report.json"
    tokens = ["prune", LENET, out, "--statistics", tmp_path / "m.npz", "--params", "0.4", "--json", report]
    assert run([str(token) for token in tokens]) == 0
    onnx.checker.check_model(out, full_check=True)
    found = json.loads(report.read_text())
    assert found["cost"]["params"]["after"] <= 0.4 * found["cost"]["params"]["before"]
    assert found["fidelity"] is None
    assert found["data"]["samples"] == 128
    assert any("fidelity" in note for note in found["notes"])
    assert any("fidelity" in line for line in capsys.readouterr().out.splitlines())


def test_counting_from_0_names_the_same_shards_as_counting_from_1(tmp_path, images):
    collect(LENET, images[:64], tmp_path / "0.npz", shard=(0, 2))
    collect(LENET, images[:64], tmp_path / "2.npz", shard=(2, 2))
    assert (tmp_path / "0.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()


def truncated(shards, tmp):
    whole = (shards / "2.npz").read_bytes()
    (tmp / "bad.npz").write_bytes(whole[: len(whole) // 2])
    return [shards / "1.npz", tmp / "bad.npz", shards / "3.npz"], "truncated"


def flipped(shards, tmp):
    content = bytearray((shards / "2.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp / "bad.npz").write_bytes(content)
    return [shards / "1.npz", tmp / "bad.npz", shards / "3.npz"], "damaged"


def empty(shards, tmp):
    (tmp / "bad.npz").write_bytes(b"")
    return [tmp / "bad.npz"], "truncated"


def data_file(shards, tmp):
    np.savez(tmp / "bad.npz", input=np.zeros(3))
    return [tmp / "bad.npz"], "not a file of moments"


def pickled(shards, tmp):
    np.savez(tmp / "bad.npz", header=np.array([{"a": 1}], dtype=object))
    return [tmp / "bad.npz"], "not a file of moments"


def future(shards, tmp):
    with zipfile.ZipFile(tmp / "bad.npz", "w") as archive, archive.open("header.npy", "w") as file:
        text = json.dumps({"format": "onnx-subprune statistics", "schema": 99}).encode()
        np.lib.format.write_array(file, np.frombuffer(text, np.uint8))
    return [tmp / "bad.npz"], "format 99"


def duplicated(shards, tmp):
    return [shards / "1.npz", shards / "2.npz", shards / "2.npz", shards / "3.npz"], "both are shard 2/3"


def missing(shards, tmp):
    return [shards / "1.npz", shards / "3.npz"], "shard 2/3 missing"


def whole_and_part(shards, tmp):
    return [shards / "whole.npz", shards / "1.npz"], "holds all shards already"


def no_file(shards, tmp):
    return [shards / "1.npz", tmp / "none.npz"], "no such file"


def of_another_model(shards, tmp):
    collect(DENSE, np.load(MODELS / "fashion_calibration.npz")["input"][:160], tmp / "bad.npz", shard=(2, 3))
    return [shards / "1.npz", tmp / "bad.npz", shards / "3.npz"], "different models"


def of_other_data(shards, tmp):
    collect(LENET, np.load(MODELS / "fashion_calibration.npz")["input"][:192], tmp / "bad.npz", shard=(2, 3))
    return [shards / "1.npz", tmp / "bad.npz", shards / "3.npz"], "different samples (160 and 192)"


def cut_otherwise(shards, tmp):
    collect(LENET, np.load(MODELS / "fashion_calibration.npz")["input"][:160], tmp / "bad.npz", shard=(2, 4))
    return [shards / "1.npz", tmp / "bad.npz", shards / "3.npz"], "shards of 3 and of 4"


BAD = [truncated, flipped, empty, data_file, pickled, future, duplicated, missing, whole_and_part, no_file]
BAD += [of_another_model, of_other_data, cut_otherwise]


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
def test_shards_that_do_not_belong_together_are_refused_and_nothing_is_written(tmp_path, shards, capsys, make):
    files, says = make(shards, tmp_path)
    before = sorted(tmp_path.iterdir())
    assert says in error_of(capsys, ["merge", *files, "-o", tmp_path / "m.npz"])
    assert sorted(tmp_path.iterdir()) == before


def test_pruning_refuses_moments_of_another_model_of_one_shard_and_damaged_ones(tmp_path, shards, capsys):
    out = tmp_path / "o.onnx"
    tokens = ["prune", LENET, out, "--statistics"]
    assert "another model" in error_of(capsys, ["prune", DENSE, out, "--statistics", shards / "whole.npz"])
    assert "shard 1/3 alone" in error_of(capsys, [*tokens, shards / "1.npz"])
    files, _ = truncated(shards, tmp_path)
    assert "truncated" in error_of(capsys, [*tokens, files[1]])
    assert not out.exists()


def test_a_changed_weight_makes_it_another_model(tmp_path, shards):
    model = onnx.load(LENET)
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight.flat[0] += 1
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, model.graph.initializer[0].name))
    with pytest.raises(DataError, match="another model"):
        prune_collected(model, shards / "whole.npz")


def test_a_changed_weight_in_a_side_file_makes_it_another_model(tmp_path, images):
    path = tmp_path / "m.onnx"
    onnx.save(onnx.load(LENET), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    collect(path, images[:32], tmp_path / "s.npz")
    prune_collected(path, tmp_path / "s.npz")
    content = bytearray((tmp_path / "w.bin").read_bytes())
    content[40] ^= 1
    (tmp_path / "w.bin").write_bytes(content)
    with pytest.raises(DataError, match="another model"):
        prune_collected(path, tmp_path / "s.npz")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "give --data, or --statistics"),
        (["--statistics", "WHOLE", "--data", "x.npz"], "give one of them"),
        (["--statistics", "WHOLE", "--formulation", "asymmetric"], "only layerwise is possible"),
        (["--statistics", "WHOLE", "--samples", "5"], "--samples"),
        (["--statistics", "WHOLE", "--scheduler", "tcp://x:1"], "--scheduler"),
        (["--statistics", "WHOLE", "--providers", "cpu"], "give it to `collect`"),
        (["--statistics", "WHOLE", "--macs", "0.0001"], "the least is"),
    ],
)
def test_options_that_contradict_each_other_are_one_line_and_exit_2(tmp_path, shards, capsys, options, says):
    options = [str(shards / "whole.npz") if item == "WHOLE" else item for item in options]
    assert says in error_of(capsys, ["prune", LENET, tmp_path / "o.onnx", *options])


@pytest.mark.parametrize("shard", ["3/2", "1/0", "x/2", "1", "-1/2", "1/2/3"])
def test_a_shard_that_cannot_be_is_one_line_and_exit_2(tmp_path, few, capsys, shard):
    np.savez(tmp_path / "x.npz", input=few)
    tokens = ["collect", LENET, "--data", tmp_path / "x.npz", f"--shard={shard}", "-o", tmp_path / "s.npz"]
    assert "I/N" in error_of(capsys, tokens)
    assert not (tmp_path / "s.npz").exists()


def test_more_shards_than_chunks_are_refused(tmp_path, few):
    with pytest.raises(DataError, match="at most 4 shards, not 5"):
        collect(LENET, few, tmp_path / "s.npz", shard=(1, 5))


def test_an_existing_file_is_not_touched_without_force(tmp_path, few, shards, capsys):
    out = tmp_path / "s.npz"
    out.write_bytes(b"precious")
    np.savez(tmp_path / "x.npz", input=few)
    assert "--force" in error_of(capsys, ["collect", LENET, "--data", tmp_path / "x.npz", "-o", out])
    assert "--force" in error_of(capsys, ["merge", shards / "whole.npz", "-o", out])
    assert out.read_bytes() == b"precious"
    assert run(["merge", str(shards / "whole.npz"), "-o", str(out), "--force"]) == 0
    assert out.read_bytes() == (shards / "whole.npz").read_bytes()


def test_bad_samples_of_the_own_shard_alone_are_looked_at(tmp_path, images):
    data = images[:128].copy()
    data[100, 0, 0, 0] = np.nan
    collect(LENET, data, tmp_path / "1.npz", shard=(1, 2))
    with pytest.raises(DataError, match="NaN"):
        collect(LENET, data, tmp_path / "2.npz", shard=(2, 2))


def test_a_model_with_nothing_to_prune_is_refused(tmp_path):
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }'
    )
    with pytest.raises(OptionError, match="nothing can be pruned"):
        collect(model, np.zeros((8, 4), np.float32), tmp_path / "s.npz")
