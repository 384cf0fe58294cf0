"""Squeezes without axes, whose outputs have fewer axes for a single sample: models with them are pruned on any number of samples, and keep them."""

import numpy as np
import onnx
import pytest

from onnx_subprune import Macs, prune
from onnx_subprune.graph.network import load
from onnx_subprune.runtime.session import Session
from tests.networks.check import feeds_of
from tests.networks.net import Net


def pooled(opset: int = 17, sizes: tuple[int | str, ...] = ("N", 3, 5, 5)) -> onnx.ModelProto:
    """As `x.squeeze()` behind a pooling is exported."""
    net = Net(opset)
    x = net.conv(net.relu(net.conv(net.input(sizes), 6, 3)), 8)
    net.output(net.linear(net("Squeeze", net.gap(x)), 8, 3))
    return net.model()


@pytest.mark.parametrize("samples", [1, 2, 8, 33])
def test_any_number_of_samples_is_pruned_on(samples):
    model = pooled()
    found = prune(model, feeds_of(load(model), samples, 1), budget=Macs(0.6), round_to=1).model
    assert [len(node.input) for node in found.graph.node if node.op_type == "Squeeze"] == [1]
    for count in (1, 3):
        feeds = feeds_of(load(model), count, 2)
        before, after = (Session(item).run(feeds) for item in (model, found))
        assert [value.shape for value in before.values()] == [value.shape for value in after.values()]


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("sizes", [("N", 3, 5, 5), ("N", 3, "H", "W")])
def test_axes_come_from_declared_sizes(opset, sizes):
    network = load(pooled(opset, sizes))
    for count in (1, 2):
        value = np.ones((count, 3, 5, 5), np.float32)
        (made,) = Session(network.given).run({"x": value}).values()
        assert made.shape == (count, 3)


@pytest.mark.parametrize("sizes", [(1, 3, 5, 5), (4, 3, 5, 5)])
def test_where_all_sizes_are_known_nothing_is_open(sizes):
    assert not load(pooled(sizes=sizes)).squeezed


def test_where_more_than_the_number_of_samples_is_open_the_file_is_taken_as_it_is():
    net = Net()
    net.output(net("Squeeze", net.linear(net.input(("N", 1, "L", 3)), 3, 4)))
    assert not load(net.model()).squeezed
