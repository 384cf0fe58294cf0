"""What a script, a reader or a folder of test sets has is fed as it is; numbers change their type where that changes none of them."""

import numpy as np
import pytest
from onnx import numpy_helper

from onnx_subprune.calibration.data.constants import constants_named
from onnx_subprune.calibration.data.reading import Reading, open_data
from onnx_subprune.errors import DataError, DataNote, OptionError
from onnx_subprune.runtime.session import Port, Runnable
from tests.networks.net import Net

FLOAT, INT = np.dtype(np.float32), np.dtype(np.int64)
RANDOM = np.random.default_rng(0)
X = RANDOM.integers(-9, 9, (8, 3)).astype(FLOAT)
PORT = Port("x", ("N", 3), FLOAT)
STATES = (PORT, Port("h", (2, "N", 4), FLOAT), Port("rate", (), INT))
RUNS = [
    {"x": RANDOM.random((4, 3), FLOAT), "h": RANDOM.random((2, 4, 4), FLOAT), "rate": np.array(number)}
    for number in range(3)
]


class Reader:
    def __init__(self):
        self.feeds = iter(RUNS)

    def get_next(self):
        return next(self.feeds, None)


def test_sets(folder):
    for number, run in enumerate(RUNS):
        (folder / f"test_data_set_{number}").mkdir()
        for index, port in enumerate(STATES):
            path = folder / f"test_data_set_{number}" / f"input_{index}.pb"
            path.write_bytes(numpy_helper.from_array(run[port.name]).SerializeToString())
    return folder


test_sets.__test__ = False


@pytest.mark.parametrize(
    "make",
    [
        lambda _: RUNS,
        lambda _: iter(RUNS),
        lambda _: lambda: iter(RUNS),
        lambda _: [tuple(run[port.name] for port in STATES) for run in RUNS],
        lambda _: Reader(),
        test_sets,
    ],
    ids=["list", "generator", "factory", "tuples", "reader", "test sets"],
)
def test_each_run_is_fed_as_it_is(tmp_path, make):
    data, _ = open_data(make(tmp_path), STATES)
    assert (data.samples, data.chunk_count) == (3, 3)
    for wanted, have in zip(RUNS, data.chunks(), strict=True):
        assert set(have) == set(wanted)
        for name, array in wanted.items():
            assert have[name].shape == array.shape
            assert np.array_equal(have[name], array)
    first, rest = data.take(2), data.rest(2)
    assert [part.samples for part in (first, rest)] == [2, 1]
    assert np.array_equal(next(rest.chunks())["h"], RUNS[2]["h"])


def test_runs_must_fit_the_model():
    with pytest.raises(DataError, match=r"item 1.*'x' has shape \(8,\), but \(4, 3\) before"):
        open_data([RUNS[0], {**RUNS[1], "x": X[:, 0]}], STATES)
    with pytest.raises(DataError, match=r"'h' has shape \(3, 4, 4\), the model wants \(2, N, 4\)"):
        open_data([{**RUNS[0], "h": np.ones((3, 4, 4), FLOAT)}], STATES)
    with pytest.raises(DataError, match="in run 1"):
        open_data([RUNS[0], {**RUNS[1], "x": np.full((4, 3), np.nan, FLOAT)}], STATES)


def sentences(*lengths):
    """Ids of words, a sentence a run."""
    return [{"ids": np.arange(length)[None] + number} for number, length in enumerate(lengths)]


IDS = (Port("ids", (None, "length"), INT),)


def test_runs_of_different_sizes_are_fed_one_by_one():
    given = sentences(3, 5, 2, 9)
    data, rest = open_data(given, IDS, samples=3)
    assert (data.samples, data.chunk, data.chunk_count, data.ragged) == (3, 1, 3, True)
    assert [chunk["ids"].tolist() for chunk in data.chunks()] == [run["ids"].tolist() for run in given[:3]]
    assert rest is not None
    assert rest.fed("ids", 0).shape == (1, 9)
    assert data.feeds(2)["ids"].shape == (1, 3)  # neither the shortest nor the longest
    assert data.at(np.array([0, 2])).fed("ids", 1).tolist() == [[2, 3]]
    assert not data.uniform
    assert data.sha256() != open_data(sentences(3, 5, 3), IDS)[0].sha256()


def test_a_folder_of_files_of_different_sizes_is_runs(tmp_path):
    for number, run in enumerate(sentences(3, 5, 2)):
        np.savez(tmp_path / f"{number}.npz", **run)
    data, _ = open_data(str(tmp_path), IDS)
    assert [chunk["ids"].shape for chunk in data.chunks()] == [(1, 3), (1, 5), (1, 2)]


def test_graphs_have_as_many_nodes_and_edges_as_they_have():
    ports = (Port("nodes", ("nodes", 3), FLOAT), Port("ends", ("edges", 2), INT))
    graphs = [{"nodes": X[:count], "ends": np.zeros((2 * count, 2), INT)} for count in (3, 5, 4)]
    data, _ = open_data(graphs, ports)
    assert [(run["nodes"].shape[0], run["ends"].shape[0]) for run in data.chunks()] == [(3, 6), (5, 10), (4, 8)]


def test_runs_of_different_sizes_are_converted_and_looked_through_one_by_one():
    with pytest.warns(DataNote, match="the data: input 'ids' is converted from int32"):
        data, _ = open_data([{"ids": run["ids"].astype(np.int32)} for run in sentences(3, 5)], IDS)
    assert data.fed("ids", 1).dtype == np.int64
    ports = (Port("x", (1, "length"), FLOAT),)
    with pytest.raises(DataError, match="'x' holds NaN or infinity in run 1"):
        open_data([{"x": np.ones((1, 3), FLOAT)}, {"x": np.full((1, 4), np.nan, FLOAT)}], ports)
    with pytest.raises(DataError, match=r"'x' is empty, \(1, 0\), in run 1"):
        open_data([{"x": np.ones((1, 3), FLOAT)}, {"x": np.ones((1, 0), FLOAT)}], ports)


def recurrent():
    """Time on the first axis."""
    net = Net(seed=1)
    x = net.input(["T", 1, 3])
    y, *_ = net.add("LSTM", x, net.weight(1, 8, 3), net.weight(1, 8, 2), outputs=3, hidden_size=2)
    net.output(net("Squeeze", y, net.constant(np.array([1]))))
    return net.model()


def rowwise():
    net = Net(seed=1)
    x = net.input(["T", 1, 3])
    net.output(net("MatMul", x, net.weight(3, 2)))
    return net.model()


@pytest.mark.parametrize("feeds", [2, 1])
@pytest.mark.parametrize(("model", "apart"), [(recurrent(), True), (rowwise(), False)], ids=["recurrent", "by rows"])
def test_runs_are_joined_where_the_model_treats_what_is_in_them_one_by_one(model, apart, feeds):
    runs = [{"x": RANDOM.random((6, 1, 3), FLOAT)} for _ in range(feeds)]
    port = Port("x", ("T", 1, 3), FLOAT)
    data, _ = open_data(runs, [port], reading=Reading(model=Runnable(model)))
    assert data.runs == apart
    assert data.samples == (feeds if apart else 6 * feeds)


def by_time(*shape):
    """A recurrence over the first axis of x."""
    net = Net(seed=1)
    x = net.input(list(shape))
    y, *_ = net.add("LSTM", x, net.weight(1, 8, 6), net.weight(1, 8, 2), outputs=3, hidden_size=2)
    net.output(net("Squeeze", y, net.constant(np.array([1]))))
    return net.model()


def pooled(*shape):
    """An image without an axis of samples."""
    net = Net(seed=1)
    x = net("Unsqueeze", net.input(list(shape)), net.constant(np.array([0])))
    net.output(net("ReduceMean", net("Conv", x, net.weight(4, 3, 3, 3)), axes=[0, 2, 3], keepdims=0))
    return net.model()


@pytest.mark.parametrize(
    ("model", "shape", "sizes", "told"),
    [
        (by_time, (10, "n", 6), (10, 16, 6), "'n' does, by its name"),
        (by_time, ("T", "batch", 6), (10, 16, 6), "'batch' does, by its name"),
        (by_time, (10, "s0", 6), (10, 16, 6), "axis 1 does"),
        (by_time, (10, 16, 6), (10, 16, 6), "axis 1 does"),
        (by_time, ("s0", "s1", 6), (10, 16, 6), "axis 1 does"),
        (pooled, (3, 8, 8), (3, 8, 8), "for no output has so many"),
    ],
)
def test_another_axis_is_not_taken_for_samples(model, shape, sizes, told):
    made, port = model(*shape), Port("x", shape, FLOAT)
    array = RANDOM.random(sizes, FLOAT)
    with pytest.raises(DataError, match=f"does not count samples.*{told}.*run by run"):
        open_data(array, [port], reading=Reading(model=Runnable(made)))
    data, _ = open_data([{"x": array}] * 3, [port], reading=Reading(model=Runnable(made)))
    assert data.samples == 3
    assert data.runs


@pytest.mark.parametrize("shape", [("s0", 6), (8, 6), ("s0", "s1", 6), ("N", 6), (8, 4, 6)])
def test_samples_are_samples_whatever_they_are_called(shape):
    net = Net(seed=1)
    net.output(net("Softmax", net("MatMul", net.input(list(shape)), net.weight(6, 3)), axis=-1))
    array = RANDOM.random((8, 4, 6) if len(shape) == 3 else (8, 6), FLOAT)
    data, _ = open_data(array, [Port("x", shape, FLOAT)], reading=Reading(model=Runnable(net.model())))
    assert (data.samples, data.runs) == (8, False)


@pytest.mark.parametrize("first", ["s0", 8])
def test_samples_that_depend_on_each_other_are_noted(first):
    net = Net(seed=1)
    x = net("MatMul", net.input([first, 6]), net.weight(6, 3))
    net.output(net("Sub", x, net("ReduceMean", x, axes=[0])))
    with pytest.warns(DataNote, match="depends on the others beside it"):
        open_data(
            RANDOM.random((8, 6), FLOAT), [Port("x", (first, 6), FLOAT)], reading=Reading(model=Runnable(net.model()))
        )


@pytest.mark.parametrize(
    "array",
    [X.astype(np.float64), np.abs(X).astype(np.uint8), X.astype(">f4"), X.astype(np.int64), X > 0],
    ids=lambda array: str(array.dtype),
)
def test_other_types_are_converted_where_no_number_changes(array):
    with pytest.warns(DataNote, match=r"'x' is converted from .* to float32"):
        data, _ = open_data(array, [PORT])
    assert data.arrays["x"].dtype == FLOAT
    assert data.arrays["x"].dtype.isnative
    assert np.array_equal(data.arrays["x"], array)


def test_an_archive_without_names_will_do_for_one_input(tmp_path):
    np.savez(tmp_path / "x.npz", X)
    assert np.array_equal(open_data(tmp_path / "x.npz", [PORT])[0].arrays["x"], X)


def test_a_constant_is_fed_to_every_run(tmp_path):
    np.save(tmp_path / "h.npy", RUNS[0]["h"])
    constants = constants_named([f"h={tmp_path / 'h.npy'}", "rate=16000"])
    reading = Reading(constants=constants)
    data, _ = open_data({"x": X}, STATES, reading=reading)
    assert data.samples == 8
    for chunk in data.chunks():
        assert np.array_equal(chunk["h"], RUNS[0]["h"])
        assert chunk["rate"].shape == ()
        assert chunk["rate"].dtype == INT
    assert (
        data.sha256() != open_data({"x": X}, STATES, reading=Reading(constants={**constants, "rate": 8000}))[0].sha256()
    )


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["rate"], "NAME=VALUE"),
        (["rate=fast"], "no number"),
        (["rate=1", "rate=2"], "once"),
        (["speed=1"], "no such input"),
        (["rate=0.5"], "is float64, the model wants int64"),
        (["h=1"], "open sizes"),
        (["rate=1", "rate2=[1,[2]]"], "no number"),
        (["h=nowhere.npy"], "no such file"),
    ],
)
def test_constants_that_make_no_sense_are_told(texts, says):
    with pytest.raises((OptionError, DataError), match=says):
        open_data({"x": X}, STATES, reading=Reading(constants=constants_named(texts)))
