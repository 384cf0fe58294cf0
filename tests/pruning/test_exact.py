"""What is lost nothing of, stays as it was: budgets that dead channels meet, channels that hardly speak, activations of any size, equal runs."""

import json
from dataclasses import fields

import numpy as np
import onnx
import pytest

from onnx_subprune import (
    Channels,
    Latency,
    Macs,
    MarginalCost,
    MaxDrop,
    Params,
    Refit,
    Resources,
    Threshold,
    Uniform,
    Validation,
    prune,
    sensitivity,
)
from onnx_subprune.calibration.streaming import runner
from onnx_subprune.graph.costs.costs import costs
from onnx_subprune.graph.costs.milliseconds import milliseconds
from onnx_subprune.graph.costs.tables import made_here
from onnx_subprune.graph.network import load
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.runtime.observing import observe
from onnx_subprune.runtime.session import Runnable, Session
from tests.conftest import sample_models
from tests.networks.check import feeds_of
from tests.networks.dead import apart, doomed, killed
from tests.networks.net import Net
from tests.networks.patterns import PATTERNS

ONE = Resources(threads=1, trials=0, shifts=False)
SEVERAL = ("activation-relu", "residual-identity", "depthwise", "split-in-equal-parts")
TIMED = ("seconds", "latency", "latency_ratios", "latency_single", "layers", "notes", "warnings")
BY_NAME = {pattern.name: pattern for pattern in PATTERNS}


def outputs(model, feeds):
    return Session(model, optimize=False).run(feeds)


@pytest.mark.parametrize("allocator", [MarginalCost(), Uniform()], ids=lambda item: type(item).__name__)
@pytest.mark.parametrize("name", SEVERAL)
def test_every_budget_that_the_dead_part_meets_gives_the_same_outputs(name, allocator):
    network = load(BY_NAME[name].model(17))
    graph, feeds = trace(network), feeds_of(network, 32, 0)
    dead, price = doomed(graph), costs(network, graph)
    model = killed(network, graph, dead, feeds)
    living = {group.name: group.width - len(dead[group.name]) for group in graph.groups}
    for kind, cost in ((Macs, price.macs), (Params, price.params)):
        least = cost(living) / cost({})
        for fraction in (least + 1e-6, (1 + least) / 2):
            found = prune(model, feeds, budget=kind(fraction), allocator=allocator, round_to=1, resources=ONE)
            assert apart(outputs(model, feeds), outputs(found.model, feeds)) < 1e-5


@pytest.fixture(scope="module")
def half_dead():
    """Three layers of which half is dead, its inputs, and how many of each group live."""
    net = Net(seed=3)
    last = net.relu(net.conv(net.relu(net.conv(net.input(("N", 3, 8, 8)), 16, 3)), 24, 3))
    net.output(net.dense(net("Flatten", net.gap(last)), 24, 5), 2)
    network = load(net.model())
    graph, x = trace(network), np.random.default_rng(1).standard_normal((48, 3, 8, 8)).astype(np.float32)
    dead = doomed(graph)
    model = killed(network, graph, dead, {"x": x})
    return model, x, {group.name: group.width - len(dead[group.name]) for group in graph.groups}


def close(model, x):
    """A score that falls as soon as the outputs are others than the model's."""
    wanted = outputs(model, {"x": x})
    return Validation(lambda path: -apart(wanted, outputs(onnx.load(path), {"x": x})))


def latency(model, x, living, folder):
    """What the living take of the time, by a table of this machine with times that no other work disturbs: those here are microseconds."""
    table = json.loads(json.dumps(made_here(Runnable(model), {"x": x[:8]}, threads=1, block=16)))
    for shape in table["shapes"]:
        shape["ms"] = [[1e-4 * read * written for written in shape["writes"]] for read in shape["reads"]]
    for layer in table["layers"].values():
        shape = table["shapes"][layer["shape"]]
        layer["ms"] = 1e-4 * shape["read"] * shape["written"]
    (folder / "t.json").write_text(json.dumps(table))
    network = load(model)
    time = milliseconds(network, trace(network), table)
    return {"budget": Latency(time(living) / time({}) + 1e-6, table=str(folder / "t.json"))}


def macs(model, living):
    network = load(model)
    cost = costs(network, trace(network)).macs
    return cost(living) / cost({})


BUDGETS = {
    "threshold": lambda model, x, living, _: {
        "budget": Macs(macs(model, living) + 1e-6),
        "allocator": Threshold(),
        "metric": close(model, x),
    },
    "latency": latency,
    "drop": lambda model, x, living, _: {"budget": MaxDrop(1e-6, close(model, x))},
    "drop by threshold": lambda model, x, living, _: {
        "budget": MaxDrop(1e-6, close(model, x)),
        "allocator": Threshold(),
    },
}


@pytest.mark.parametrize("kind", BUDGETS)
def test_budgets_of_time_and_of_a_metric_lose_nothing_either_where_enough_is_dead(kind, half_dead, tmp_path):
    model, x, living = half_dead
    found = prune(model, x, **BUDGETS[kind](model, x, living, tmp_path), round_to=1, resources=ONE)
    assert apart(outputs(model, {"x": x}), outputs(found.model, {"x": x})) < 1e-5
    assert found.report.macs.ratio < (1 + macs(model, living)) / 2


@pytest.mark.parametrize("allocator", [MarginalCost(), Uniform()], ids=lambda item: type(item).__name__)
def test_what_a_machine_likes_is_no_reason_to_lose_what_the_budget_leaves(allocator, half_dead):
    model, x, living = half_dead  # of 24 channels 12 live, which is no multiple of 8
    budget = Macs(macs(model, living) + 1e-6)
    found = prune(model, x, budget=budget, allocator=allocator, target="cpu-avx512", resources=ONE)
    assert {group.name: group.width[1] for group in found.report.groups} == living
    assert any("smaller blocks than cpu-avx512" in note for note in found.report.notes)
    assert apart(outputs(model, {"x": x}), outputs(found.model, {"x": x})) < 1e-5


def rarely(active, x):
    """Two convolutions, half dead; one channel of the second is alive at `active` of all positions."""
    net = Net(seed=3)
    last = net.conv(net.relu(net.conv(net.relu(net.conv(net.input(("N", 3, 12, 12)), 16, 3)), 16, 3)), 4)
    net.output(last, 4)
    network = load(net.model())
    graph = trace(network)
    dead = doomed(graph)
    proto = killed(network, graph, dead, {"x": x})
    second = next(node for node in proto.graph.node[2:] if node.op_type == "Conv")
    values = {tensor.name: tensor for tensor in proto.graph.initializer}
    rare = min(set(range(16)) - set(dead[graph.groups[1].name].tolist()))
    bias = np.frombuffer(values[second.input[2]].raw_data, np.float32).copy()
    before = observe(proto, {"x": x}, [second.output[0]])[second.output[0]]
    heights = np.sort(before[:, rare], axis=None)
    bias[rare] -= (heights[-active] + heights[-active - 1]) / 2
    values[second.input[2]].raw_data = bias.tobytes()
    return proto


@pytest.mark.parametrize("active", [1, 5])
def test_a_channel_that_is_alive_anywhere_in_the_data_stays_where_others_are_dead(active):
    x = np.random.default_rng(1).standard_normal((64, 3, 12, 12)).astype(np.float32)
    model = rarely(active, x)
    found = prune(model, x, budget=Channels(0.5), round_to=1, resources=Resources(threads=1, positions=4))
    assert apart(outputs(model, {"x": x}), outputs(found.model, {"x": x})) < 1e-5


def test_the_size_of_activations_plays_no_part():
    def error(scale):
        net = Net(seed=1)
        first = net.constant((net.rng.standard_normal((12, 16)) * 0.3 * scale).astype(np.float32))
        hidden = net.relu(net("MatMul", net.input(["n", 12]), first))
        last = net("MatMul", net.relu(net("MatMul", hidden, net.weight(16, 16))), net.weight(16, 8))
        net.output(net("Mul", last, net.constant(np.float32(1 / scale))), 2)
        model, x = net.model(), np.random.default_rng(1).standard_normal((64, 12)).astype(np.float32)
        small = prune(model, x, budget=Channels(0.5), round_to=1, resources=ONE).model
        return apart(outputs(model, {"x": x}), outputs(small, {"x": x}))

    assert [error(2.0**power) for power in (-40, -90)] == pytest.approx([error(1.0)] * 2, rel=1e-2)


def poisoned(monkeypatch):
    """Memory that nobody wrote holds no numbers."""
    empty = np.empty

    def made(*shape, **options):
        array = empty(*shape, **options)
        if array.dtype.kind == "f":
            array.fill(np.nan)
        return array

    monkeypatch.setattr(np, "empty", made)


@pytest.mark.parametrize("path", sample_models(), ids=lambda path: path.stem)
def test_equal_runs_give_the_same_bytes_whatever_memory_held(path, images, monkeypatch):
    def run():
        found = prune(path, images[:24], budget=Macs(0.6), round_to=1, refit=Refit(joint=1), resources=ONE)
        report = found.report
        told = [repr(getattr(report, item.name)) for item in fields(report) if item.name not in TIMED]
        return found.model.SerializeToString(deterministic=True), told

    first = run()
    poisoned(monkeypatch)
    assert run() == first


def test_outputs_at_several_depths_are_read_as_they_were_written(monkeypatch):
    net = Net(seed=0)
    first = net.conv(net.relu(net.conv(net.input(("N", 8, 8, 8)), 16, 3)), 8, 3)
    net.output(first, 4)
    net.output(net.conv(net.relu(net.conv(first, 16, 3)), 4, 3), 4)
    x = np.random.default_rng(1).standard_normal((32, 8, 8, 8)).astype(np.float32)
    expected = sensitivity(net.model(), x, resources=ONE)
    monkeypatch.setattr(runner, "PIECE", 1)
    poisoned(monkeypatch)
    found = sensitivity(net.model(), x, resources=ONE)
    for one, other in zip(expected, found, strict=True):
        assert one.output.errors == pytest.approx(other.output.errors, rel=1e-3)
