"""Choices and refits of the walk on networks whose best channels and weights are known without a computer."""

import numpy as np
import pytest
from onnx import numpy_helper

from onnx_subprune import Channels, Gates, Refit, Resources, prune
from onnx_subprune.selection import Choice
from tests.networks.net import Net


class First:
    """Keeps the first channels."""

    def path(self, problems, sizes, cells, threads=1):
        return tuple(Choice(tuple(range(size)), 0.0) for size in sizes)


def independent(*energies):
    """Two hundred samples of independent channels of these mean squares, each with the mean 0: every sign with every other one."""
    signs = np.array(np.meshgrid(*[(-1.0, 1.0)] * len(energies))).reshape(len(energies), -1).T
    return np.tile(signs * np.sqrt(energies), (-(-200 // len(signs)), 1)).astype(np.float32)


def positive(*variances):
    """The same without values below 0, which a ReLU would not let through."""
    return independent(*variances) + np.sqrt(np.asarray(variances, np.float32))


def weights_of(net, data, kept, *, refit, **options):
    found = prune(
        net.model(),
        data,
        budget=Channels(kept),
        round_to=1,
        min_width=1,
        refit=refit,
        resources=Resources(holdout=0, shifts=False),
        gates=Gates(accept_any=True),
        **options,
    )
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in found.model.graph.initializer}


PLAIN = Refit(joint=0, rounds=0)


def two_readers(first, second, *, apart):
    """Four channels, of which each is an input, and two layers that read them; `apart`, the second one behind a function."""
    net = Net()
    x = net.input(("N", 4))
    made = net("MatMul", x, net.constant(np.eye(4, dtype=np.float32), "made"))
    other = net("Neg", made) if apart else made
    a = net("MatMul", made, net.constant(np.asarray(first, np.float32), "a"))
    b = net("MatMul", other, net.constant(np.asarray(second, np.float32), "b"))
    net.output(a, 2)
    net.output(b, 2)
    return net


def test_the_channel_whose_part_of_the_output_is_largest_stays():
    net = Net()
    x = net.input(("N", 3))
    made = net("MatMul", x, net.constant(np.eye(3, dtype=np.float32), "made"))
    net.output(net("MatMul", net.relu(made), net.constant(np.array([[3], [2], [1]], np.float32), "read")), 2)
    # the mean squares are 2, 8, 18, and their parts of the output 18, 32, 18
    found = weights_of(net, positive(1, 4, 9), 0.34, refit=PLAIN)
    np.testing.assert_array_equal(found["made"], np.eye(3)[:, 1:2])
    # no bias: E[(3 a + 2 b + c) b] / E[b b] = (3 * 1 * 2 + 2 * 8 + 3 * 2) / 8
    np.testing.assert_allclose(found["read"], [[3.5]], atol=1e-3)


def test_a_channel_that_another_one_makes_up_for_goes():
    net = Net()
    x = net.input(("N", 2))
    made = np.array([[1, 0, 1], [0, 1, 0]], np.float32)  # the last one is the first
    y = net.relu(net("MatMul", x, net.constant(made, "made")))
    net.output(net("MatMul", y, net.constant(np.array([[2], [1], [2]], np.float32), "read")), 2)
    found = weights_of(net, positive(1, 1), 0.67, refit=PLAIN)
    assert found["read"].shape == (2, 1)
    assert sorted(found["read"].ravel().round(3)) == [1.0, 4.0]


@pytest.mark.parametrize("apart", [False, True])
def test_what_all_readers_lose_adds_up(apart):
    first, second = np.diag([5.0, 0.0, 4.0, 1.0]), np.diag([0.0, 5.0, 4.0, 1.0])
    # squares 25, 25, 16 + 16, 2, where each reader alone would keep its own
    found = weights_of(two_readers(first, second, apart=apart), independent(1.0, 1.01, 1.02, 1.03), 0.25, refit=PLAIN)
    np.testing.assert_array_equal(found["made"], np.eye(4)[:, 2:3])


RISING = np.array([[1.0], [2.0], [-1.0]], np.float32)


def clipped(bias):
    """A channel that stays, one that goes, and a reader with a ReLU behind it: 1, 2 and, where nobody sees it, -10."""
    net = Net()
    x = net.input(("N", 2))
    made = net("MatMul", x, net.constant(np.eye(2, dtype=np.float32), "made"))
    read = net("Gemm", made, net.constant(np.array([[1], [1]], np.float32), "read"), net.constant(bias, "bias"))
    net.output(net("Relu", read), 2)
    return net


def test_what_the_activation_hides_pulls_no_weight():
    # the second channel is 0, 0 and -9: seen through the ReLU, the first one is all that there is
    data = np.tile(np.concatenate([RISING, [[0.0], [0.0], [-9.0]]], axis=1), (80, 1)).astype(np.float32)
    bias = np.zeros(1, np.float32)

    def short(rounds):
        found = weights_of(clipped(bias), data, 0.5, refit=Refit(joint=0, rounds=rounds), selector=First())
        made = np.maximum(data[:, :1] @ found["read"] + found["bias"], 0.0)
        return float(np.abs(made - np.maximum(data.sum(axis=1, keepdims=True), 0.0)).max())

    # the line through (1, 1), (2, 2), (-1, -10) by least squares misses the first two by far
    once, many = short(0), short(40)
    assert once > 0.5
    assert many < 0.15 < once
    assert short(4) < once


def test_a_step_with_the_producer_makes_the_channel_that_is_left_what_its_reader_needs():
    """y = (x W) r with one channel of two: whatever is read, x W1 r1 alone can be all of it, if W1 turns to where W r points."""
    net = Net()
    x = net.input(("N", 2))
    made = net("MatMul", x, net.constant(np.eye(2, dtype=np.float32), "made"))
    net.output(net("MatMul", made, net.constant(np.array([[1], [1]], np.float32), "read")), 2)
    data = independent(1, 1)
    sliced = weights_of(net, data, 0.5, refit=PLAIN, selector=First())
    turned = weights_of(net, data, 0.5, refit=Refit(joint=8, rounds=0), selector=First())
    np.testing.assert_allclose(sliced["made"] @ sliced["read"], [[1.0], [0.0]], atol=1e-4)
    np.testing.assert_allclose(turned["made"] @ turned["read"], [[1.0], [1.0]], atol=0.02)
