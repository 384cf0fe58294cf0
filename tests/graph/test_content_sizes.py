"""Networks that are as long inside as their inputs say, as text-to-speech is; and networks that draw random numbers, which nothing can be compared with."""

import numpy as np
import pytest

from onnx_subprune.allocation import Channels
from onnx_subprune.errors import ModelError
from onnx_subprune.graph.content_sizes import sized_by_content
from onnx_subprune.graph.network import load
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.collect import collect
from onnx_subprune.pruning.compare import compare
from onnx_subprune.pruning.prune import prune
from onnx_subprune.pruning.prune_from_moments import prune_collected
from onnx_subprune.pruning.resources import Resources
from onnx_subprune.runtime.session import Session
from tests.networks.dead import doomed, killed
from tests.networks.net import Net

CHEAP = Resources(threads=1, trials=0, holdout=0)
X = np.random.default_rng(0).standard_normal((48, 8, 24)).astype(np.float32)


def speech(batch=1):
    """Positions whose sum is not low are taken, and convolved."""
    net = Net(seed=4)
    text = net.conv(net.relu(net.conv(net.input((batch, 8, 24)), 16, 3, rank=1)), 8, 3, rank=1)
    sums = net.reduce("ReduceSum", text, 1, keepdims=0)
    places = net("NonZero", net("Greater", sums, net.constant(np.float32(-2))))
    taken = net("Gather", text, net("Gather", places, net.constant(np.array(1)), axis=0), axis=2)
    net.width[taken] = 8
    last = net.conv(net.relu(net.conv(net.relu(net.conv(taken, 16, 3, rank=1)), 12, 3, rank=1)), 4, 3, rank=1)
    net.output(net.reduce("ReduceMean", last, 2, keepdims=0), 2)
    return net.model()


def apart(original, small, feeds):
    wanted, have = (
        np.concatenate([next(iter(session.run({"x": x[None]}).values())) for x in feeds])
        for session in (Session(original, threads=1), Session(small, threads=1))
    )
    return np.linalg.norm(wanted - have) / np.linalg.norm(wanted)


def test_what_is_behind_chosen_positions_has_sizes_of_its_own():
    network = load(speech())
    sized = sized_by_content(network)
    convolutions = [node for node in network.nodes if node.op_type == "Conv"]
    assert [node.output[0] in sized for node in convolutions] == [False, False, True, True, True]


def test_a_target_that_is_the_size_of_an_input_is_no_content():
    net = Net(seed=1)
    x = net.input(("N", "L", 8))
    zeros = net("ConstantOfShape", net.concat(net.dim(x, 0), net.dim(x, 1), net.constant(np.array([6])), axis=0))
    net.output(net.linear(net("Add", net.linear(x, 8, 6), zeros), 6, 3), 3)
    assert not sized_by_content(load(net.model()))


def test_dead_channels_go_exactly_behind_chosen_positions_too(tmp_path):
    network = load(speech())
    graph = trace(network)
    model = killed(network, graph, doomed(graph), {"x": X[:1]})
    found = prune(model, X, budget=Channels(0.5), round_to=1, resources=CHEAP)
    assert apart(model, found.model, X) < 1e-5
    collect(model, X, tmp_path / "m.npz", resources=CHEAP)
    small = prune_collected(model, tmp_path / "m.npz", budget=Channels(0.5), round_to=1, resources=CHEAP).model
    assert apart(model, small, X) < 1e-5


def test_layers_behind_chosen_positions_are_refitted():
    model = speech()
    behind = [node.name for node in model.graph.node if node.op_type == "Conv"][2:]
    errors = [
        apart(
            model, prune(model, X, budget=Channels(0.6), only=behind, round_to=1, resources=CHEAP, refit=refit).model, X
        )
        for refit in (None, True)
    ]
    assert errors[1] < 0.6 * errors[0]


def noisy():
    net = Net(seed=4)
    x, scale = net.input(("N", 8)), net.input([], "scale")
    hidden = net.linear(net("Relu", net.linear(x, 8, 6)), 6, 6)
    hidden = net("Add", hidden, net("Mul", net("RandomNormalLike", hidden, name="noise"), scale))
    net.output(net.linear(hidden, 6, 3), 2)
    return net.model()


def test_random_numbers_are_refused_unless_they_are_scaled_to_nothing():
    x = X[:, :, 0]
    with pytest.raises(ModelError, match=r"draws random numbers \(noise, RandomNormalLike\).*--set"):
        prune(noisy(), x, budget=Channels(0.5), resources=CHEAP, constants={"scale": 1.0})
    with pytest.raises(ModelError, match="draws random numbers"):
        compare(noisy(), noisy(), x, threads=1, constants={"scale": 1.0})
    found = prune(noisy(), x, budget=Channels(0.7), resources=CHEAP, constants={"scale": 0.0})
    assert any(node.op_type == "RandomNormalLike" for node in found.model.graph.node)
