"""Costs are counted at the sizes of the data, and models run at these sizes alone; a sample is one of a fixed batch."""

import numpy as np
import pytest

from onnx_subprune.allocation import Macs
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.errors import SubpruneError
from onnx_subprune.graph.costs.costs import costs
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.collect import collect
from onnx_subprune.pruning.compare import compare
from onnx_subprune.pruning.prune import prune
from onnx_subprune.pruning.prune_from_moments import prune_collected
from onnx_subprune.pruning.resources import Resources
from tests.networks.net import Net


def open_size(shape=("n", 1, "h", "w")):
    net = Net(seed=1)
    x = net.relu(net.conv(net.input(list(shape)), 8, 3))
    net.head(net.relu(net.conv(x, 8, 3)))
    return net.model()


def macs_at(side):
    return side * side * 9 * 8 * (1 + 8) + 8 * 5


@pytest.mark.parametrize("side", [6, 20])
def test_a_budget_is_of_the_work_at_the_size_of_the_data(side):
    x = np.random.default_rng(0).standard_normal((16, 1, side, side)).astype(np.float32)
    model = open_size()
    result = prune(model, x, budget=Macs(0.6), resources=Resources(threads=1, trials=0))
    assert result.report.macs.before == macs_at(side)
    assert result.report.macs.after <= 0.6 * macs_at(side)
    found = compare(model, result.model, x, threads=1)
    assert found.macs.before == macs_at(side)
    assert found.macs.after == result.report.macs.after


def test_moments_remember_the_sizes_of_their_data(tmp_path):
    x = np.random.default_rng(0).standard_normal((16, 1, 6, 6)).astype(np.float32)
    collect(open_size(), x, tmp_path / "m.npz", resources=Resources(threads=1))
    report = prune_collected(open_size(), tmp_path / "m.npz", budget=Macs(0.6), resources=Resources(threads=1)).report
    assert report.macs.before == macs_at(6)
    with pytest.raises(SubpruneError, match="model"):
        prune_collected(open_size(("n", 1, 6, 6)), tmp_path / "m.npz")


def blocks():
    """Whole blocks of 48 alone: no made-up size is one."""
    net = Net(seed=1)
    x = net.reshape(net.input(["n", "length"]), 0, -1, 48)
    net.output(net.linear(net.relu(net.linear(x, 48, 12)), 12, 4))
    return net.model()


@pytest.mark.parametrize("length", [96, 48])
def test_a_model_that_runs_on_no_made_up_size_runs_on_the_data(length):
    x = np.random.default_rng(0).standard_normal((16, length)).astype(np.float32)
    graph = trace(blocks(), example=Calibration(arrays={"x": x}, chunk=4).example())
    assert [group.width for group in graph.groups] == [12]


@pytest.mark.parametrize("batch", [4, 1])
def test_a_sample_of_a_fixed_batch_is_one(batch):
    net = Net()
    net.output(net.linear(net.input([batch, 24]), 24, 64))
    network = Network(net.model())
    assert costs(network, trace(network)).macs({}) == 24 * 64
