"""Which tensors hold samples one after another is seen from two runs, not guessed from sizes."""

import numpy as np
import pytest

from onnx_subprune.graph.example import Example
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.observing import observe
from tests.networks.net import Net

X = np.random.default_rng(0).standard_normal((2, 6, 4)).astype(np.float32)


def rows(build, opset=17, steps=6):
    """Rows of what `build` makes of x (n, 6, 4); steps: what the model says of the second size."""
    net = Net(opset=opset)
    x = net.input(["n", steps, 4])
    name = build(net, x)
    net.output(net.relu(x))
    example = Example(feeds={"x": X}, samples=2, stacked=frozenset("x"), free=True)
    return observe(Network(net.model()), example, rows=True).rows.get(name)


def recurrent(net, x):
    """Steps of a recurrence on the first axis: the first one does not depend on the others, but the second on the first."""
    y, *_ = net.add("LSTM", x, net.weight(1, 12, 4), net.weight(1, 12, 3), outputs=3, hidden_size=3)
    return y


def with_time_first(net, x):
    return net("Transpose", x, perm=[1, 0, 2])


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize(
    ("build", "count"),
    [
        (lambda net, x: net.relu(x), 1),
        (lambda net, x: net.reshape(x, -1, 4), 6),
        (lambda net, x: net.reshape(x, -1, 3, 4), 2),
        (with_time_first, None),
        (recurrent, None),
        (
            lambda net, x: net.reshape(with_time_first(net, x), -1, 4),
            None,
        ),  # grows with the batch, but samples lie apart
        (lambda net, x: net.reshape(with_time_first(net, net.reshape(x, -1, 2, 4)), -1, 4), None),
        (lambda net, x: net("Softmax", net.reshape(x, -1, 4), axis=1), 6),
        (lambda net, x: net("Shape", x), None),
        (lambda net, x: net("Shape", net("ReduceSum", x, net.constant(np.array([0])))), 0),
        (lambda net, x: net("ReduceMax", net.reshape(x, -1, 4), keepdims=1), None),
    ],
)
def test_rows_of_a_sample(build, count, opset):
    assert rows(build, opset) == count


def test_rows_that_nothing_tells_apart_are_not_taken_for_those_of_a_sample():
    assert rows(lambda net, x: net.reshape(net("Sign", net("Abs", x)), -1, 4)) is None


def test_nobody_asks_where_it_is_not_needed():
    net = Net()
    net.output(net.relu(net.input(["n", 3])))
    assert observe(Network(net.model())).rows == {}


def test_a_tensor_of_which_one_sample_leaves_a_single_number_is_not_told():
    assert rows(lambda net, x: net("Squeeze", net.linear(x, 4, 1)), steps="m") is None


def test_where_declared_sizes_tell_what_a_squeeze_takes_samples_stay():
    assert rows(lambda net, x: net("Squeeze", net.linear(net.reduce("ReduceMean", x, 1, keepdims=0), 4, 1))) == 1
