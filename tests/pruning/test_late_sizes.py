"""Sizes that are read from an input, or from an early tensor, wherever they stand: every part of the model that is run gets them."""

import numpy as np
import pytest

from onnx_subprune.allocation import Channels
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.streaming.settings import Running
from onnx_subprune.calibration.streaming.stream import Stream
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.network import Network
from onnx_subprune.pruning.collect import collect
from onnx_subprune.pruning.prune import prune
from onnx_subprune.pruning.resources import Resources
from onnx_subprune.pruning.sensitivity import sensitivity
from onnx_subprune.reconstruction.settings import Asymmetric, Layerwise, Sequential
from onnx_subprune.runtime.session import Session
from onnx_subprune.runtime.spill import Store
from tests.networks.net import Net

X = np.random.default_rng(0).standard_normal((24, 1, 10, 10)).astype(np.float32)
CHEAP = Resources(threads=1, trials=0)


def dead(net, *names):
    """Half of the output channels of these weights and biases are zero."""
    for name in names:
        net.weights[name] = net.weights[name].copy()
        net.weights[name][: len(net.weights[name]) // 2] = 0


def batch_of(net, tensor):
    """(n, -1), computed: as `x.view(x.size(0), -1)` is exported."""
    size = net("Gather", net("Shape", tensor), net.constant(np.array(0)), axis=0)
    first = net("Unsqueeze", size, net.constant(np.array([0])))
    return net("Concat", first, net.constant(np.array([-1])), axis=0)


def network(place):
    """Two convolutions, pooling, Reshape to (n, -1), dense; half of the channels are dead. place: which tensor n is read from, and when."""
    net = Net(opset=17, seed=2)
    x = net.input(["n", 1, 10, 10])
    target = batch_of(net, x) if place == "input, first" else ""
    first = net.relu(net.conv(x, 8, 3, w=net.weight(8, 1, 3, 3, name="w0"), b=net.weight(8, name="b0")))
    second = net.relu(net.conv(first, 8, 3, w=net.weight(8, 8, 3, 3, name="w1"), b=net.weight(8, name="b1")))
    pooled = net.gap(second)
    at = {"input": x, "first map": first, "second map": second, "pooled map": pooled}
    target = target or batch_of(net, at[place])
    flat = net("Reshape", pooled, target)
    net.output(net.dense(flat, 8, 5))
    dead(net, "w0", "b0", "w1", "b1")
    return net.model()


PLACES = ("input", "input, first", "first map", "second map", "pooled map")


def difference(model, small, x):
    (wanted,), (have,) = (Session(item, threads=1).run({"x": x}).values() for item in (model, small))
    return np.linalg.norm(have - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize("place", PLACES)
def test_dead_channels_go_wherever_the_size_of_the_batch_is_read(place):
    model = network(place)
    result = prune(model, X, budget=Channels(0.5), resources=CHEAP)
    assert difference(model, result.model, X) < 1e-4


@pytest.mark.parametrize("formulation", [Asymmetric(), Sequential(), Layerwise()], ids=lambda item: type(item).__name__)
def test_every_formulation_and_little_memory_do_as_well(formulation):
    model = network("input")
    little = Resources(threads=1, trials=0, batch_size=3, memory=1 << 16)
    result = prune(model, X, budget=Channels(0.5), formulation=formulation, resources=little)
    assert difference(model, result.model, X) < 1e-4


@pytest.mark.parametrize("place", ["input", "input, first"])
def test_a_step_of_the_producer_is_that_of_the_same_network_with_flatten(place):
    """A quarter of the channels is too few: the last convolution is refitted through the Reshape."""
    smaller, flat = (
        prune(item, X, budget=Channels(0.25), resources=CHEAP).model for item in (network(place), flattened())
    )
    assert difference(flat, smaller, X) < 1e-3


@pytest.mark.parametrize("place", ["input", "pooled map"])
def test_sensitivities_are_those_of_the_same_network_with_flatten(place):
    found, expected = (sensitivity(item, X, resources=CHEAP) for item in (network(place), flattened()))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.output.errors, other.output.errors, rtol=1e-3, atol=1e-9)


def flattened():
    net = Net(opset=17, seed=2)
    x = net.input(["n", 1, 10, 10])
    first = net.relu(net.conv(x, 8, 3, w=net.weight(8, 1, 3, 3, name="w0"), b=net.weight(8, name="b0")))
    second = net.relu(net.conv(first, 8, 3, w=net.weight(8, 8, 3, 3, name="w1"), b=net.weight(8, name="b1")))
    net.output(net.dense(net("Flatten", net.gap(second)), 8, 5))
    dead(net, "w0", "b0", "w1", "b1")
    return net.model()


def test_constants_beyond_the_fifth_input_are_changed_as_well():
    """A node of a part that is run sees what is new in whichever slot it is."""

    net = Net(opset=17)
    x = net.input(["n", 2])
    net.output(net("Concat", *[x] * 6, net.constant(np.ones((4, 1), np.float32)), axis=1))
    made = Network(net.model())
    with Store(1 << 20) as store:
        stream = Stream(made, Calibration(arrays={"x": np.zeros((4, 2), np.float32)}, chunk=4), store, Running())
        stream.override(Use(made.labels[0], 6), np.full((4, 1), 7, np.float32))
        (found,) = stream.read(made.outputs)
    assert (found[made.outputs[0]][:, -1] == 7).all()


def with_sequence():
    """Two dense layers, past which a part of the input goes in a sequence."""
    net = Net(seed=1)
    x = net.input(["n", 8])
    hidden = net.relu(net.linear(x, 8, 16))
    parts = net("SplitToSequence", x, net.constant(np.array([4, 4])), axis=1)
    made = net.linear(net.relu(net.linear(hidden, 16, 12)), 12, 4)
    net.output(net("Add", made, net("SequenceAt", parts, net.constant(np.array(1)))))
    return net.model()


@pytest.mark.parametrize("formulation", [Asymmetric(), Layerwise()], ids=lambda item: type(item).__name__)
def test_what_is_no_array_is_computed_where_it_is_read(formulation, tmp_path):
    model, x = with_sequence(), X.reshape(-1, 8)[:32]
    small = prune(model, x, budget=Channels(0.9), round_to=1, formulation=formulation, resources=CHEAP).model
    assert difference(model, small, x) < 0.5
    collect(model, x, tmp_path / "m.npz", resources=CHEAP)
