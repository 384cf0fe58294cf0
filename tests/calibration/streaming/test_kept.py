"""Channels that are dropped leave the running model, and nothing else that it computes changes."""

import numpy as np
import pytest

from onnx_subprune import Channels, Resources, prune
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.streaming.executor import Streams
from onnx_subprune.calibration.streaming.settings import Running
from onnx_subprune.calibration.streaming.stream import Stream
from onnx_subprune.calibration.streaming.target import Cut
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.surgery.slicing import kept_positions
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.reconstruction.producers.chains import chains, separate
from onnx_subprune.reconstruction.progress import Pairing
from onnx_subprune.runtime.spill import Store
from tests.conftest import MODELS
from tests.networks.net import Net

GENERATOR = np.random.default_rng(5)
SUPPORT = (0, 3, 4)


def pair(between):
    """A network of two convolutions, with the only group there is, and where its channels lie."""
    net = Net(opset=17, seed=2)
    made = net.conv(net.input(["n", 3, 9, 9]), 6, 3)
    passed = between(net, made)
    net.width[passed] = 6
    net.output(net.conv(passed, 5, 3))
    network = Network(net.model())
    graph = trace(network)
    kept = kept_positions(graph, {graph.groups[0].name: SUPPORT})
    cut = Cut(
        tensors={axis.tensor: (axis.index, left) for axis, left in kept.items() if axis.use is None},
        constants={axis.use: (axis.index, left) for axis, left in kept.items() if axis.use is not None},
    )
    return network, graph, cut


def without(weight):
    """The weight of the reader, zero for the channels that are dropped."""
    masked = np.zeros_like(weight)
    masked[:, list(SUPPORT)] = weight[:, list(SUPPORT)]
    return masked


BETWEEN = {
    "relu": lambda net, x: net.relu(x),
    "batch normalization, relu": lambda net, x: net.relu(net.bn(x)),
    "silu": lambda net, x: net("Mul", x, net("Sigmoid", x)),
    "average pooling": lambda net, x: net("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2]),
}


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("budget", [1 << 20, 0], ids=["in memory", "on disk"])
def test_what_is_behind_the_cut_stays_the_same(between, held, budget):
    network, graph, cut = pair(BETWEEN[between])
    producer, reader = sorted(graph.contractions, key=lambda item: network.position[item.node])
    x = GENERATOR.standard_normal((5, 3, 9, 9)).astype(np.float32)
    moved = (network.array(producer.weight_tensor) * 1.5).astype(np.float32)
    weight = without(network.array(reader.weight_tensor))
    found = []
    with Store(budget) as store:
        for cutting in (False, True):
            stream = Stream(network, Calibration(arrays={"x": x}, chunk=2), store, Running())
            stream.override(producer.weight, moved)
            stream.advance(0, [reader.input.tensor] if held else [])
            if cutting:
                stream.cut(cut)
            stream.override(producer.weight, moved)  # constants are still given whole
            if held:
                stream.advance(0, [reader.input.tensor])
            stream.override(reader.weight, weight)
            inside = [part[reader.input.tensor] for part in stream.read([reader.input.tensor])]
            output = np.concatenate([part[network.outputs[0]] for part in stream.read(network.outputs)])
            found.append((np.concatenate(inside), output))
            assert stream.shape_of(reader.input.tensor) == inside[0].shape
            stream.close()
    (whole, before), (narrow, after) = found
    np.testing.assert_allclose(narrow, whole[:, list(SUPPORT)], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4 * np.abs(before).max())


def test_a_bias_that_is_new_is_cut_as_it_comes():
    network, graph, cut = pair(BETWEEN["silu"])
    producer = min(graph.contractions, key=lambda item: network.position[item.node])
    use = producer.bias or Use(producer.node, 2)
    whole = Cut(tensors=cut.tensors, constants={**cut.constants, use: (0, np.array(SUPPORT))})
    with Store(1 << 20) as store:
        stream = Stream(
            network, Calibration(arrays={"x": np.ones((2, 3, 9, 9), np.float32)}, chunk=2), store, Running()
        )
        stream.cut(whole)
        stream.override(use, np.full(6, 7.0, np.float32))
        made = next(stream.read([producer.output.tensor]))[producer.output.tensor]
        stream.override(use, np.zeros(6, np.float32))
        bare = next(stream.read([producer.output.tensor]))[producer.output.tensor]
    np.testing.assert_allclose(made - bare, 7.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("between", "alone"),
    [
        (lambda net, x: net.relu(net.bn(x)), True),
        (lambda net, x: net("MaxPool", net.relu(x), kernel_shape=[2, 2], strides=[2, 2]), True),
        (lambda net, x: net("Mul", x, net.weight(6, 1, 1)), False),
        (lambda net, x: net.conv(x, 6, 3, group=6), False),
    ],
    ids=["normalized", "pooled", "scaled by channel", "depthwise"],
)
def test_channels_go_their_own_ways_or_do_not(between, alone):
    network, graph, _ = pair(between)
    mixing = [item for item in graph.contractions if not item.whole_groups]
    order = sorted(mixing, key=lambda item: network.position[item.node])
    assert separate(network, chains(network, order)[order[-1].weight]) == alone


def test_the_walk_comes_to_the_same(images, monkeypatch):
    def pruned():
        return prune(MODELS / "resnet_fashion.onnx", images, budget=Channels(0.5), resources=Resources(samples=128))

    cuts, cut = [], Streams.cut
    with monkeypatch.context() as patch:
        patch.setattr(Streams, "cut", lambda self, what: (cuts.append(what), cut(self, what))[1])
        ours = pruned()
    assert len(cuts) >= 3
    monkeypatch.setattr(Pairing, "cut", lambda *arguments: None)
    theirs = pruned()
    one, other = ({group.name: group for group in item.report.groups} for item in (ours, theirs))
    same = [len(set(one[name].kept) & set(other[name].kept)) / len(one[name].kept) for name in one]
    assert np.mean(same) > 0.9
    errors = [next(iter(item.report.fidelity.outputs.values())).relative_error for item in (ours, theirs)]
    assert errors[0] == pytest.approx(errors[1], rel=0.1)
