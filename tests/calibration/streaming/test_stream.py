"""Chunks that are read late come to what they would have been."""

import numpy as np
import pytest

from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.streaming.settings import Running
from onnx_subprune.calibration.streaming.stream import Stream
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.network import Network
from onnx_subprune.runtime.spill import Store
from tests.networks.net import Net

GENERATOR = np.random.default_rng(11)
X = GENERATOR.standard_normal((7, 3, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def network():
    """Four convolutions with an addition around the two in the middle; after the second come an activation and the other two."""
    net = Net(opset=17, seed=4)
    first = net.relu(net.conv(net.input(["n", 3, 8, 8]), 4, 3))
    middle = net.conv(net.relu(net.conv(first, 5, 3)), 4, 3)
    net.output(net.conv(net.relu(net("Add", first, middle)), 2, 1))
    return Network(net.model())


def convolutions(network):
    return [index for index, node in enumerate(network.nodes) if node.op_type == "Conv"]


def walked(network, looked_at, store, running=Running()):
    """Double the weights of every convolution while the stream waits there; `looked_at` are the chunks that are read on the way."""
    stream = Stream(network, Calibration(arrays={network.inputs[0].name: X}, chunk=2), store, running)
    for index in convolutions(network):
        node = network.nodes[index]
        stream.advance(index, [node.output[0]])
        list(stream.read([node.output[0]], looked_at))
        stream.override(Use(network.labels[index], 1), 2.0 * network.array(node.input[1]))
        stream.advance(index)
    return stream


@pytest.mark.parametrize("budget", [1 << 20, 0], ids=["in memory", "on disk"])
@pytest.mark.parametrize("looked_at", [[0], [1, 3], []], ids=str)
def test_chunks_that_nobody_looked_at_come_after(network, looked_at, budget):
    outputs = list(network.outputs)
    with Store(budget) as store:
        always = walked(network, range(4), store)
        seldom = walked(network, looked_at, store)
        together = list(always.read(outputs))
        apart = list(seldom.read(outputs))
    assert [len(part[outputs[0]]) for part in apart] == [2, 2, 2, 1]
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(other[outputs[0]], one[outputs[0]], rtol=1e-5, atol=1e-5)


def test_what_lies_ahead_is_forgotten_when_the_stream_is_told_to_wait(network):
    with Store(1 << 20) as store:
        index = convolutions(network)[1]
        name = network.nodes[index].output[0]
        stream = Stream(network, Calibration(arrays={network.inputs[0].name: X}, chunk=2), store, Running())
        stream.advance(index, [name])
        old = next(stream.read([name], [0]))[name]
        stream.override(Use(network.labels[index], 1), 2.0 * network.array(network.nodes[index].input[1]))
        stream.advance(index)
        stream.advance(index, [name])
        new = next(stream.read([name], [0]))[name]
    bias = (
        network.array(network.nodes[index].input[2]).reshape(1, -1, 1, 1) if len(network.nodes[index].input) > 2 else 0
    )
    np.testing.assert_allclose(new - bias, 2.0 * (old - bias), rtol=1e-4, atol=1e-5)


def test_a_chunk_that_is_not_read_is_not_run(network):
    run = []

    class Counted(Running):
        def open(self, model, side, folder=None):
            session = super().open(model, side, folder)
            whole = session.run
            session.run = lambda feeds, outputs=None: (
                run.append(len(next(iter(feeds.values())))) or whole(feeds, outputs)
            )
            return session

    with Store(1 << 20) as store:
        stream = walked(network, [1], store, Counted())
        assert run
        assert set(run) == {2}
        count = len(run)
        list(stream.read(list(network.outputs), [3]))
        assert run[count:] == [1, 1]  # one run up to here, one for the output


def test_inputs_stay_where_they_are(network):
    with Store(0) as store:
        stream = Stream(network, Calibration(arrays={network.inputs[0].name: X}, chunk=2), store, Running())
        assert [part[network.inputs[0].name].shape[0] for part in stream.read([network.inputs[0].name])] == [2, 2, 2, 1]
        assert stream.shape_of(network.inputs[0].name) == (2, 3, 8, 8)
        assert store.spilled == 0
