"""Runs of different sizes: pictures, sentences and graphs as they come, one a run, with no padding."""

import pickle

import numpy as np
import pytest

from onnx_subprune.allocation import Channels
from onnx_subprune.calibration.dask.shipment import Shipment
from onnx_subprune.calibration.data.reading import Reading, open_data
from onnx_subprune.calibration.files.merge import merge
from onnx_subprune.graph.network import load
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.collect import collect
from onnx_subprune.pruning.compare import compare
from onnx_subprune.pruning.prune import prune
from onnx_subprune.pruning.prune_from_moments import prune_collected
from onnx_subprune.pruning.resources import Resources
from onnx_subprune.reconstruction.settings import Asymmetric, Layerwise, Sequential
from onnx_subprune.runtime.session import Runnable, Session
from tests.networks.dead import doomed, killed
from tests.networks.net import INT64, Net

CHEAP = Resources(threads=1, trials=0, holdout=0)


def pictures(count, seed=0, least=5, most=12):
    generator = np.random.default_rng(seed)
    sizes = generator.integers(least, most, (count, 2))
    return [{"x": generator.standard_normal((1, 3, *size)).astype(np.float32)} for size in sizes]


def maps():
    """Kernels of several taps, so that images of one size would have their own way to moments."""
    net = Net(seed=3)
    last = net.relu(net.conv(net.relu(net.conv(net.input(("N", 3, "H", "W")), 16, 3)), 24, 3))
    net.output(net.dense(net("Flatten", net.gap(last)), 24, 5), 2)
    return net.model()


def tagger():
    """A layer in both directions, whose units are put side by side by a Reshape that a batch of one leaves in doubt."""
    net = Net(seed=1)
    x = net("Transpose", net.input(["N", "L", 3]), perm=[1, 0, 2])
    y, *_ = net.add(
        "LSTM", x, net.weight(2, 32, 3), net.weight(2, 32, 8), outputs=3, hidden_size=8, direction="bidirectional"
    )
    y = net("Reshape", net("Transpose", y, perm=[0, 2, 1, 3]), net.constant(np.array([0, 0, -1])))
    net.output(net("Transpose", net.linear(net("Tanh", net.linear(y, 16, 12)), 12, 4), perm=[1, 0, 2]), 3)
    return net.model()


def messages():
    """A step of a graph network: nodes take the sum of what the ends of their edges send."""
    net = Net(seed=2)
    nodes, ends = net.input(["nodes", 6], "nodes"), net.input(["edges", 2], "ends", kind=INT64)
    seen = net("Relu", net.linear(nodes, 6, 16))
    first, second = net.add("Split", ends, outputs=2, axis=1)
    sent = net("Relu", net.linear(net("GatherND", seen, first), 16, 12))
    zeros = net("ConstantOfShape", net.concat(net.dim(nodes, 0), net.constant(np.array([12])), axis=0))
    got = net("ScatterND", zeros, second, sent, reduction="add")
    net.output(net.linear(net("Relu", net.linear(got, 12, 10)), 10, 3), 2)
    return net.model()


def graphs(count, seed=0):
    generator = np.random.default_rng(seed)
    found = []
    for nodes in generator.integers(4, 9, count):
        ends = generator.integers(0, nodes, (3 * nodes, 2))
        found.append({"nodes": generator.standard_normal((nodes, 6)).astype(np.float32), "ends": ends})
    return found


def sequences(count, seed=0):
    generator = np.random.default_rng(seed)
    return [
        {"x": generator.standard_normal((1, length, 3)).astype(np.float32)}
        for length in generator.integers(3, 9, count)
    ]


def half_dead(model, feeds):
    network = load(model)
    graph = trace(
        network, example=open_data(feeds, Session(model, threads=1).inputs, reading=reading(model))[0].example()
    )
    return killed(network, graph, doomed(graph), feeds[0])


def reading(model):
    return Reading(model=Runnable(model, None))


def apart(original, small, feeds):
    """The error over the size of the outputs, of all runs together."""
    lost = size = 0.0
    for feed in feeds:
        (wanted,), (have,) = (Session(item, threads=1).run(feed).values() for item in (original, small))
        lost, size = lost + float(np.sum((wanted - have) ** 2)), size + float(np.sum(wanted**2))
    return np.sqrt(lost / size)


CASES = {"maps": (maps, pictures), "tagger": (tagger, sequences), "messages": (messages, graphs)}


@pytest.mark.parametrize("formulation", [Asymmetric(), Sequential(), Layerwise()], ids=lambda item: type(item).__name__)
@pytest.mark.parametrize("case", CASES)
def test_dead_channels_go_exactly(case, formulation):
    build, data = CASES[case]
    model = half_dead(build(), data(24))
    found = prune(model, data(24), budget=Channels(0.5), formulation=formulation, round_to=1, resources=CHEAP)
    assert found.report.data["samples"] == 24
    assert any("fed one by one" in note for note in found.report.notes)
    assert found.report.params.after < 0.6 * found.report.params.before
    assert apart(model, found.model, data(5, seed=1)) < 1e-5


@pytest.mark.parametrize("case", CASES)
def test_what_is_printed_is_true_of_others(case):
    build, data = CASES[case]
    model = build()
    found = prune(model, data(192), budget=Channels(0.7), round_to=1, resources=Resources(threads=1))
    (printed,) = found.report.fidelity.outputs.values()
    assert printed.relative_error is not None
    true = apart(model, found.model, data(100, seed=7))
    assert printed.relative_error_spread is not None
    assert abs(printed.relative_error - true) < 3 * printed.relative_error_spread < true
    again = compare(model, found.model, data(100, seed=7), threads=1).fidelity.outputs
    assert next(iter(again.values())).relative_error == pytest.approx(true, rel=1e-3)


def test_shards_of_runs_add_up_to_what_all_have(tmp_path):
    model = half_dead(maps(), pictures(24))
    parts = [tmp_path / f"{index}.npz" for index in range(2)]
    for index, path in enumerate(parts):
        collect(model, pictures(24), path, shard=(index + 1, 2), resources=CHEAP)
    merge(parts, tmp_path / "all.npz")
    collect(model, pictures(24), tmp_path / "one.npz", resources=CHEAP)
    assert (tmp_path / "all.npz").read_bytes() == (tmp_path / "one.npz").read_bytes()
    small = prune_collected(model, tmp_path / "all.npz", budget=Channels(0.5), round_to=1, resources=CHEAP).model
    assert apart(model, small, pictures(5, seed=1)) < 1e-5


def test_a_worker_is_sent_its_runs():
    data, _ = open_data(pictures(9), Session(maps(), threads=1).inputs, reading=reading(maps()))
    sent = pickle.loads(pickle.dumps(Shipment.of(data.part(3, 6)))).open()
    assert [chunk["x"].shape for chunk in sent.chunks()] == [feed["x"].shape for feed in pictures(9)[3:6]]
    assert (sent.runs, sent.single, sent.ragged) == (True, True, True)
