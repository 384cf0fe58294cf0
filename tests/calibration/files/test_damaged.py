"""Files of moments that are damaged: whatever is changed in them, they are refused in one line, or what they say is possible."""

import json
import zipfile

import numpy as np
import onnx
import pytest

from onnx_subprune import Channels, collect, merge, prune_collected
from onnx_subprune.errors import DataError
from tests.graph.test_soundness import network


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("moments")
    onnx.save(network(), folder / "m.onnx")
    x = np.random.default_rng(0).standard_normal((16, 12)).astype(np.float32)
    for number in (1, 2):
        collect(folder / "m.onnx", x, folder / f"s{number}.npz", shard=(number, 2))
    merge([folder / "s1.npz", folder / "s2.npz"], folder / "s.npz")
    return folder


def without(suffix):
    return lambda members: {name: value for name, value in members.items() if not name.endswith(suffix)}


def changed(suffix, change):
    return lambda members: {name: change(v) if name.endswith(suffix) else v for name, v in members.items()}


def in_header(**values):
    def change(array):
        found = json.loads(array.tobytes())
        for key, value in values.items():
            (found if key in found else found["settings"])[key] = value
        return np.frombuffer(json.dumps(found).encode(), np.uint8)

    return changed("header", change)


DAMAGE = {
    "half of a pair is missing": without("gram.lo"),
    "both sums of inputs are missing": lambda members: without("sum_input.lo")(without("sum_input.hi")(members)),
    "no sizes": without("/shape"),
    "a count of nothing": changed("/count", lambda _: np.array(0)),
    "a count of fewer than none": changed("/count", lambda _: np.array(-5)),
    "a count that is none": changed("/count", lambda _: np.array([1.5, 2.5])),
    "a shape that is none": changed("/shape", lambda _: np.array([[0.5]])),
    "text for numbers": changed("gram.hi", lambda a: np.full(a.shape, "a")),
    "sums of a smaller layer": changed(".hi", lambda a: a[..., :-1]),
    "no columns at all": changed("sum_input.hi", lambda a: a[:, :0]),
    "huge sums": changed("gram.hi", lambda a: a * 1e150),
    "sums that are no numbers": changed("gram.hi", lambda a: a * np.nan),
    "negative lengths": changed("gram.hi", lambda a: -a),
    "products that no rows have": changed(
        "gram.hi", lambda a: np.where(np.arange(a.size).reshape(a.shape) % 7 == 1, 1e6, a)
    ),
    "means that no rows have": changed("sum_input.hi", lambda a: a * 1e9),
    "no samples": in_header(samples=0),
    "no chunk": in_header(chunk=0),
    "a chunk of text": in_header(chunk="many"),
    "passes that are not those": in_header(passes=[1, -1]),
}


def damaged(collected, folder, name, source):
    with np.load(collected / source) as archive:
        members = DAMAGE[name]({key: archive[key] for key in archive.files})
    np.savez(folder / source, **members)
    return folder / source


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_moments_are_refused_in_one_line(collected, tmp_path, name):
    with pytest.raises(DataError) as caught:
        prune_collected(collected / "m.onnx", damaged(collected, tmp_path, name, "s.npz"), budget=Channels(0.5))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", [name for name in DAMAGE if "missing" in name or "count that" in name or name.startswith("no ")]
)
def test_damaged_shards_are_not_merged(collected, tmp_path, name):
    first = damaged(collected, tmp_path, name, "s1.npz")
    with pytest.raises(DataError) as caught:  # noqa: PT012 - what merging lets through is found when it is used
        merge([first, collected / "s2.npz"], tmp_path / "o.npz")
        prune_collected(collected / "m.onnx", tmp_path / "o.npz", budget=Channels(0.5))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shard", [[0, 2**62], [-1, 2], [2, 2], [0, 0]])
def test_shards_that_cannot_be_are_refused_soon(collected, tmp_path, shard):
    with np.load(collected / "s1.npz") as archive:
        members = in_header(shard=shard)({key: archive[key] for key in archive.files})
    np.savez(tmp_path / "s1.npz", **members)
    with pytest.raises(DataError):
        merge([tmp_path / "s1.npz", collected / "s2.npz"], tmp_path / "o.npz")


def test_a_member_that_is_cut_off_is_refused(collected, tmp_path):
    with zipfile.ZipFile(collected / "s.npz") as old, zipfile.ZipFile(tmp_path / "s.npz", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name)[: -8 if name.endswith("gram.hi.npy") else None])
    with pytest.raises(DataError):
        prune_collected(collected / "m.onnx", tmp_path / "s.npz", budget=Channels(0.5))
