"""Calibration data: every source gives the same samples, chunks lie at fixed places, and bad data say what is wrong."""

import itertools
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from onnx_subprune.calibration.data.labels import read_labels
from onnx_subprune.calibration.data.mapped import in_memory, mapping_of
from onnx_subprune.calibration.data.reading import open_data
from onnx_subprune.calibration.data.samples import CHUNK, Calibration, chunk_size
from onnx_subprune.calibration.data.sources import MAPPED
from onnx_subprune.errors import ArgumentTypeError, DataError
from onnx_subprune.runtime.session import Port

FLOAT, INT = np.dtype(np.float32), np.dtype(np.int64)
X = np.random.default_rng(0).standard_normal((10, 3)).astype(FLOAT)
IDS = np.arange(20, dtype=INT).reshape(10, 2)
ONE = (Port("x", ("N", 3), FLOAT),)
TWO = (*ONE, Port("ids", (None, "length"), INT))
BOTH = {"x": X, "ids": IDS}
SCRIPT = """
import numpy as np
with np.load({path!r}) as archive:
    X = dict(archive)
def data():
    for start in range(0, len(X["x"]), 3):
        yield {{name: array[start:start + 3] for name, array in X.items()}}
def listed():
    return list(data())
"""


class Reader:
    """As onnxruntime's CalibrationDataReader."""

    def __init__(self, size):
        self.size = size
        self.rewind()

    def rewind(self):
        self.feeds = iter(pieces(self.size))

    def get_next(self):
        return next(self.feeds, None)


def pieces(size):
    return [{n: a[start : start + size] for n, a in BOTH.items()} for start in range(0, 10, size)]


def npz(folder):
    np.savez(folder / "x.npz", **BOTH)
    return folder / "x.npz"


def compressed(folder):
    np.savez_compressed(folder / "x.npz", **BOTH)
    return str(folder / "x.npz")


def folder_of_npz(folder):
    for number, piece in enumerate(pieces(1)):
        np.savez(folder / f"part_{number + 5}.npz", **piece)  # 5 ... 14: numbers are sorted as numbers
    return folder


def onnx_test_sets(folder):
    for number, piece in enumerate(pieces(1)):
        place = folder / f"test_data_set_{number + 5}"
        place.mkdir()
        for index, port in enumerate(TWO):
            (place / f"input_{index}.pb").write_bytes(numpy_helper.from_array(piece[port.name]).SerializeToString())
    return folder


def script(folder):
    (folder / "load.py").write_text(SCRIPT.format(path=str(npz(folder))))
    return folder / "load.py"


SOURCES = {
    "npz": npz,
    "compressed npz": compressed,
    "folder of npz": folder_of_npz,
    "test data sets": onnx_test_sets,
    "script": script,
    "function of a script": lambda folder: f"{script(folder)}:listed",
    "dictionary": lambda _: BOTH,
    "list": lambda _: pieces(4),
    "generator": lambda _: iter(pieces(3)),
    "reader": lambda _: Reader(3),
}


def refused(source, ports, *pieces, samples=None):
    """DataError of one line that holds all pieces."""
    with pytest.raises(DataError) as caught:
        open_data(source, ports, samples=samples)
    text = str(caught.value)
    assert "\n" not in text
    for piece in pieces:
        assert piece in text


def joined(data):
    chunks = list(data.chunks())
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in data.arrays}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_every_source_gives_the_same_samples(tmp_path, make):
    data, rest = open_data(make(tmp_path), TWO)
    assert rest is None
    assert data.samples == 10
    assert data.sha256() == Calibration(arrays=BOTH, chunk=1).sha256()
    for name, array in joined(data).items():
        assert array.dtype == BOTH[name].dtype
        assert np.array_equal(array, BOTH[name])


@pytest.mark.parametrize("where", ["memory", "file", "folder"])
def test_one_array_will_do_for_one_input(tmp_path, where):
    np.save(tmp_path / "a_2.npy", X[:6])
    np.save(tmp_path / "a_10.npy", X[6:])
    (tmp_path / "one").mkdir()
    np.save(tmp_path / "one" / "x.npy", X)
    source = {"memory": X, "file": tmp_path / "one" / "x.npy", "folder": tmp_path}[where]
    assert np.array_equal(joined(open_data(source, ONE)[0])["x"], X)


def test_a_large_npy_file_is_mapped_and_not_read_at_once(tmp_path):
    large = np.zeros((MAPPED // 12 + 1, 3), FLOAT)
    np.save(tmp_path / "x.npy", large)
    data, _ = open_data(tmp_path / "x.npy", ONE, samples=8)
    array = data.arrays["x"]
    while array.base is not None and not isinstance(array, np.memmap):
        array = array.base
    assert isinstance(array, np.memmap)
    assert type(next(data.chunks())["x"]) is np.ndarray


def test_a_reader_is_rewound_so_that_it_can_be_used_again():
    reader = Reader(3)
    assert open_data(reader, TWO)[0].sha256() == open_data(reader, TWO)[0].sha256()


def test_a_path_with_a_colon_is_a_path(tmp_path):
    folder = tmp_path / "a.py:b" / "c.npz:d"
    folder.mkdir(parents=True)
    assert open_data(npz(folder), TWO)[0].samples == 10
    assert open_data(f"{script(folder)}:data", TWO)[0].samples == 10
    np.save(folder / "y.npy", np.arange(3))
    assert read_labels(str(folder / "y.npy")).tolist() == [0, 1, 2]


def test_a_script_may_define_dataclasses_and_hides_no_module(tmp_path):
    (tmp_path / "json.py").write_text(
        "from __future__ import annotations\nimport dataclasses, numpy\n"
        "@dataclasses.dataclass\nclass C:\n    n: int\n"
        "def data():\n    yield {'x': numpy.ones((C(4).n, 3), 'f')}\n"
    )
    before = sys.modules.get("json")
    assert open_data(tmp_path / "json.py", ONE)[0].samples == 4
    assert sys.modules.get("json") is before


@settings(max_examples=50, deadline=None)
@given(
    total=st.integers(1, 300), fixed=st.none() | st.integers(1, 40), batches=st.lists(st.integers(1, 50), min_size=1)
)
def test_chunks_do_not_depend_on_the_batches_in_which_data_came(total, fixed, batches):
    array = np.arange(total * 3, dtype=FLOAT).reshape(total, 3)
    ends = [end for end in itertools.accumulate(batches) if end < total]
    feeds = [{"x": part} for part in np.split(array, ends)]
    ports = (Port("x", (fixed, 3), FLOAT),)
    if total < (fixed or 1):
        refused(array, ports, f"batches of exactly {fixed}")
        return
    whole, parts = open_data(array, ports)[0], open_data(feeds, ports)[0]
    assert whole.sha256() == parts.sha256()
    for ours, theirs in zip(whole.chunks(), parts.chunks(), strict=True):
        assert np.array_equal(ours["x"], theirs["x"])


@given(samples=st.integers(1, 5000))
def test_there_are_at_least_four_chunks_and_none_is_larger_than_the_standard_size(samples):
    size = chunk_size(samples, None)
    assert 1 <= size <= CHUNK
    assert -(-samples // size) >= min(4, samples)
    assert chunk_size(samples, 7) == 7


@pytest.mark.parametrize(("each", "expected"), [(3072, 32), (3 * 224 * 224 * 4, 32), (1 << 20, 16), (1 << 26, 1)])
def test_chunks_of_large_samples_are_smaller(each, expected):
    assert chunk_size(4096, None, each) == expected
    assert chunk_size(4096, 7, each) == 7


@settings(max_examples=50, deadline=None)
@given(total=st.integers(1, 200), fixed=st.none() | st.integers(1, 20), samples=st.integers(1, 250))
def test_what_is_taken_and_the_rest_are_the_data_in_order(total, fixed, samples):
    array = np.arange(total, dtype=FLOAT)[:, None]
    unit = fixed or 1
    ports = (Port("x", (fixed, 1), FLOAT),)
    if min(total, samples) < unit:
        refused(array, ports, "samples", samples=samples)
        return
    first, rest = open_data(array, ports, samples=samples)
    taken = min(total, samples) // unit * unit
    assert np.array_equal(joined(first)["x"], array[:taken])
    left = (total - taken) // unit * unit
    assert (rest is None) == (left == 0)
    if rest is not None:
        assert np.array_equal(joined(rest)["x"], array[taken : taken + left])
    for data in (first, rest) if rest else (first,):
        sizes = [len(chunk["x"]) for chunk in data.chunks()]
        assert data.chunk == chunk_size(data.samples, fixed)
        assert all(size == data.chunk for size in (sizes if fixed else sizes[:-1]))


def test_the_rest_of_all_is_none_and_taking_more_than_there_is_takes_all():
    data, _ = open_data(BOTH, TWO)
    assert data.rest(10) is None
    assert data.take(99).sha256() == data.sha256()


def test_the_digest_depends_on_names_types_shapes_values_and_order_alone():
    def digest(arrays, chunk=4):
        return Calibration(arrays=arrays, chunk=chunk).sha256()

    base = digest({"x": X})
    assert digest({"x": X}, 7) == digest({"x": np.asfortranarray(X)}) == base
    assert digest({"x": X, "ids": IDS}) == digest({"ids": IDS, "x": X})
    other = [{"z": X}, {"x": X.view(np.int32)}, {"x": X.reshape(5, 6)}, {"x": X[::-1]}, {"x": X[:9]}]
    assert base not in {digest(arrays) for arrays in other}


def test_a_fixed_first_axis_of_all_inputs_is_a_batch():
    ports = (Port("x", (5, 3), FLOAT), Port("ids", (5, 2), INT))
    data, _ = open_data(BOTH, ports)
    assert [{n: len(a) for n, a in chunk.items()} for chunk in data.chunks()] == [{"x": 5, "ids": 5}] * 2


def test_large_float64_values_are_finite():
    huge = np.full((4, 3), 1e300)
    assert open_data(huge, (Port("x", ("N", 3), np.dtype(np.float64)),))[0].samples == 4


def test_nothing_of_the_users_is_written_to():
    array = X.copy()
    array.flags.writeable = False
    data, _ = open_data(array, ONE)
    assert np.array_equal(joined(data)["x"], X)
    arrays = {"x": X.copy(), "ids": IDS.copy()}
    open_data(arrays, TWO, samples=4)
    assert list(arrays) == ["x", "ids"]
    assert all(np.array_equal(arrays[name], BOTH[name]) for name in BOTH)


nan = X.copy()
nan[7, 1] = np.nan
inf = X.copy()
inf[0, 0] = -np.inf
BAD = {
    "missing name": (
        {"x": X},
        TWO,
        ["has arrays for 'x'", "the model's inputs are 'ids', 'x'", "add 'ids'", "--set ids="],
    ),
    "unknown name": ({"y": X}, ONE, ["'y'", "'x'", "rename"]),
    "one too many": (BOTH, ONE, ["'ids', 'x'", "leave 'ids' out"]),
    "one array for two inputs": (X, TWO, ["one array", "'ids', 'x'", ".npz"]),
    "float64": (X.astype(np.float64) / 3, ONE, ["input 'x' is float64", "float32", ".astype(numpy.float32)"]),
    "large integers": (np.full((4, 3), 2**24 + 1), ONE, ["int64", "float32", ".astype(numpy.float32)"]),
    "fractions for integers": (X[:, :2] + 0.5, (TWO[1],), ["float32", ".astype(numpy.int64)"]),
    "complex numbers": (X.astype(np.complex64), ONE, ["complex64"]),
    "objects": (np.array([[{}] * 3]), ONE, ["object"]),
    "no batch axis": (X[0], ONE, ["(3,)", "(samples, 3)"]),
    "one axis too many": (X[None], ONE, ["(1, 10, 3)", "(samples, 3)"]),
    "fixed axis": (X[:, :2], ONE, ["(10, 2)", "(samples, 3)"]),
    "open axes are told": (IDS[0], (TWO[1],), ["(samples, length)"]),
    "unequal counts": ({"x": X[:9], "ids": IDS}, TWO, ["10 of 'ids', 9 of 'x'"]),
    "a number": ({"x": 3.0}, ONE, ["'x'", "a single number"]),
    "no samples": (X[:0], ONE, ["no samples"]),
    "no feeds": ([], ONE, ["no samples"]),
    "a spent generator": (iter(()), ONE, ["no samples"]),
    "NaN": (nan, ONE, ["'x'", "NaN", "sample 7"]),
    "infinity": (inf, ONE, ["'x'", "infinity", "sample 0"]),
    "arrays without names": ([X, X], TWO, ["item 0", "ndarray", "dictionary"]),
    "samples and labels": ([(X, IDS)], ONE, ["item 0", "a tuple of 2", "'x'", "without labels"]),
    "a fixed first axis beside an open one": (
        BOTH,
        (ONE[0], Port("ids", (5, 2), INT)),
        ["'ids'", "(5, 2)", "--set ids="],
    ),
    "a batch on another axis": (
        {"x": X, "h": np.ones((10, 2, 4), FLOAT)},
        (ONE[0], Port("h", (2, "N", 4), FLOAT)),
        ["'h'", "(2, N, 4)", "--set h=", "run by run"],
    ),
    "a batch behind open layers": (
        {"x": X, "h": np.ones((10, 2, 4), FLOAT)},
        (ONE[0], Port("h", ("layers", "N", 4), FLOAT)),
        ["'h'", "--set h="],
    ),
    "ragged lists": ({"x": [[1.0], [1.0, 2.0]]}, ONE, ["not an array"]),
    "names that change": ([{"x": X}, {"y": X}], ONE, ["item 1", "'y'", "'x'"]),
    "types that change": ([{"x": X}, {"x": X.astype(np.float16)}], ONE, ["item 1", "float16", "float32"]),
    "sizes that change": ([{"x": X}, {"x": X[:, :2]}], ONE, ["run 1", "(10, 2)", "(N, 3)"]),
    "counts that cancel": (
        [{"x": X[:4], "ids": IDS[:3]}, {"x": X[:3], "ids": IDS[:4]}],
        TWO,
        ["item 0", "3 of 'ids', 4 of 'x'"],
    ),
    "numbers in feeds": ([{"x": np.float32(1)}], ONE, ["item 0", "a single number"]),
    "too few for the batch": (X, (Port("x", (16, 3), FLOAT),), ["10 samples", "batches of exactly 16"]),
    "batches that contradict": (
        BOTH,
        (Port("x", (8, 3), FLOAT), Port("ids", (1, 2), INT)),
        ["8 of 'x', 1 of 'ids'", "first axis", "--set ids="],
    ),
    "an input without axes": (BOTH, (*ONE, Port("ids", (), INT)), ["'ids'", "no axis of samples", "--set ids=VALUE"]),
}


@pytest.mark.parametrize(("source", "ports", "says"), BAD.values(), ids=BAD)
def test_bad_data_are_one_line_that_says_what_is_wrong(source, ports, says):
    refused(source, ports, *says)


def test_a_single_number_for_an_input_without_axes_holds_for_all_samples(tmp_path):
    rate = Port("rate", (), INT)
    np.savez(tmp_path / "both.npz", x=X, rate=np.int64(3))
    for source in ({"x": X, "rate": 3}, tmp_path / "both.npz"):
        data, _ = open_data(source, (*ONE, rate))
        feeds = data.feeds(4)
        assert set(data.arrays) == {"x"}
        assert feeds["x"].shape == (4, 3)
        assert (feeds["rate"].dtype, feeds["rate"].shape, int(feeds["rate"])) == (np.int64, (), 3)


def test_single_numbers_alone_are_no_samples():
    refused({"rate": np.int64(3)}, (Port("rate", (), INT),), "'rate'", "no axis of samples")


@pytest.mark.parametrize("source", [None, 3, b"bytes"], ids=str)
def test_data_of_another_type_are_a_type_error(source):
    with pytest.raises(ArgumentTypeError, match=type(source).__name__):
        open_data(source, ONE)


def test_fewer_than_one_sample_cannot_be_asked_for():
    refused(X, ONE, "at least one", samples=0)


def text_of(name, content):
    def make(folder):
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


def cut(name, save, keep):
    def make(folder):
        save(folder / name, X)
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * keep)])
        return folder / name

    return make


def pickled(folder):
    np.save(folder / "x.npy", np.array([{}], object), allow_pickle=True)
    return folder / "x.npy"


def empty_folder(folder):
    return folder


def set_with(content):
    def make(folder):
        place = folder / "test_data_set_0"
        place.mkdir()
        if content is not None:
            (place / "input_0.pb").write_bytes(content)
        return folder

    return make


def mixed_folder(folder):
    np.save(folder / "a.npy", X)
    np.save(folder / "b.npy", X.astype(np.float64))
    return folder


BAD_FILES = {
    "missing": (lambda folder: folder / "x.npz", ["x.npz", "no such file"]),
    "wrong extension": (text_of("x.csv", "1,2,3"), ["x.csv", "unknown kind", ".npz"]),
    "missing script": (lambda folder: folder / "load.py", ["load.py", "no such file"]),
    "empty file": (text_of("x.npy", b""), ["x.npy", "cannot be read"]),
    "empty archive": (text_of("x.npz", b""), ["x.npz", "cannot be read"]),
    "text": (text_of("x.npy", "hello"), ["no NumPy file"]),
    "truncated npy": (cut("x.npy", np.save, 0.9), ["cannot be read as .npy"]),
    "truncated header": (cut("x.npy", np.save, 0.3), ["cannot be read as .npy"]),
    "truncated npz": (cut("x.npz", np.savez, 0.9), ["cannot be read as .npz"]),
    "pickle": (pickled, ["Python objects", "numpy.save"]),
    "empty folder": (empty_folder, ["nothing to read"]),
    "set without inputs": (set_with(None), ["input_0.pb", "no such file"]),
    "set of junk": (set_with(b"\xff\xff"), ["input_0.pb", "cannot be read as a tensor"]),
    "empty tensor file": (set_with(b""), ["input_0.pb"]),
    "folder of two types": (mixed_folder, ["b.npy", "float64", "float32 before"]),
    "script that fails": (text_of("load.py", "1 / 0"), ["load.py", "ZeroDivisionError"]),
    "script that is no Python": (text_of("load.py", "def"), ["load.py", "SyntaxError"]),
    "script that exits": (text_of("load.py", "raise SystemExit(3)"), ["load.py", "SystemExit"]),
    "script without the function": (text_of("load.py", "datum = 1"), ["'data'", "load.py:FUNCTION"]),
    "function that fails": (text_of("load.py", "def data():\n yield {}[0]"), ["load.py:data", "KeyError"]),
    "function of arguments": (text_of("load.py", "def data(n):\n yield n"), ["load.py:data", "TypeError"]),
    "function that yields no dictionaries": (text_of("load.py", "def data():\n yield 3"), ["item 0", "int"]),
    "function that yields nothing": (text_of("load.py", "def data():\n return ()"), ["no samples"]),
}


@pytest.mark.parametrize(("make", "says"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files_are_one_line_that_names_the_file(tmp_path, make, says):
    refused(make(tmp_path), ONE, *says)


@pytest.mark.parametrize("save", [np.save, np.savez, np.savez_compressed], ids=["npy", "npz", "compressed"])
def test_no_damage_to_a_file_escapes_as_another_exception(tmp_path, save):
    path = tmp_path / ("x.npy" if save is np.save else "x.npz")
    save(path, X)
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content[: rng.integers(1, len(content) + 1)])
        for place in rng.integers(len(damaged), size=3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            open_data(path, ONE)
        except DataError as error:
            assert "\n" not in str(error)  # noqa: PT017 - damage may leave a file that can be read


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_an_unreadable_file_says_so(tmp_path):
    path = npz(tmp_path)
    path.chmod(0)
    refused(path, TWO, "Permission denied")


def test_the_content_of_a_file_counts_and_not_whether_its_name_says_npy_or_npz(tmp_path):
    npz(tmp_path).rename(tmp_path / "archive.npy")
    assert open_data(tmp_path / "archive.npy", TWO)[0].samples == 10
    np.save(tmp_path / "array.npy", X)
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    assert open_data(tmp_path / "array.npz", ONE)[0].samples == 10


def test_labels_come_from_an_npy_file_or_a_named_array_of_an_npz_file(tmp_path):
    labels = np.array([3, 1, 2], np.uint8)
    np.save(tmp_path / "y.npy", labels)
    np.savez(tmp_path / "y.npz", truth=labels, other=labels[:1])
    for source in ("y.npy", "y.npz:truth"):
        found = read_labels(str(tmp_path / source))
        assert found.dtype == np.int64
        assert found.tolist() == [3, 1, 2]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("y.npz", "'scores', 'truth'"),
        ("y.npz:none", "'scores', 'truth'"),
        ("y.npz:scores", "float64 of shape (2, 2)"),
        ("none.npy", "no such file"),
        ("y.txt", "labels are y.npy or x.npz:KEY"),
        ("empty.npy", "shape (0,)"),
    ],
)
def test_bad_labels_are_one_line(tmp_path, source, says):
    np.savez(tmp_path / "y.npz", truth=np.arange(3), scores=np.zeros((2, 2)))
    np.save(tmp_path / "empty.npy", np.zeros(0, np.int64))
    with pytest.raises(DataError, match=re.escape(says)) as caught:
        read_labels(str(tmp_path / source))
    assert "\n" not in str(caught.value)


def test_a_mapped_file_takes_no_memory_once_it_is_read(tmp_path):
    values = np.random.default_rng(0).standard_normal((64, 1 << 17)).astype(np.float32)  # 32 MiB
    np.save(tmp_path / "x.npy", values)
    opened, _ = open_data(str(tmp_path / "x.npy"), [Port("x", ("n", 1 << 17), np.dtype(np.float32))])
    assert mapping_of(opened.arrays["x"]) is not None

    def mapped():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssFile"))

    before = mapped()
    digest = opened.sha256()
    for start, chunk in enumerate(opened.chunks()):
        assert mapping_of(chunk["x"]) is None
        np.testing.assert_array_equal(chunk["x"], values[start * opened.chunk : (start + 1) * opened.chunk])
    assert digest == replace(opened, arrays={"x": values}).sha256()
    assert mapped() - before < 16 << 10


def test_what_was_changed_in_a_mapping_is_not_given_back(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4, 1024), np.float32))
    private = np.load(tmp_path / "x.npy", mmap_mode="c")
    private[:] = 7
    assert in_memory(private[1:3]).min() == 7
    assert private.min() == 7
