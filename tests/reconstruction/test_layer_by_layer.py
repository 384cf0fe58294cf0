"""The walk on networks of matrices alone, whose weights are known by hand, or by least squares."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from onnx import numpy_helper

from onnx_subprune import Asymmetric, Channels, Gates, Layerwise, Refit, Resources, Sequential, prune
from onnx_subprune.selection import Choice
from tests.networks.net import Net

X = np.random.default_rng(0).standard_normal((512, 4)).astype(np.float32)


@dataclass(frozen=True)
class First:
    """Keeps the first channels."""

    def path(self, problems, sizes, cells, threads=1):
        return tuple(Choice(tuple(range(size)), 0.0) for size in sizes)


def halved(formulation, *weights, relu=()):
    """The weights of a chain of matrices, some with a ReLU behind them, with the first half of the channels between them."""
    net = Net()
    x = net.input(("N", len(weights[0])))
    for number, weight in enumerate(weights):
        x = net("MatMul", x, net.constant(weight.astype(np.float32), f"w{number}"))
        x = net.relu(x) if number in relu else x
    net.output(x, 2)
    found = prune(
        net.model(),
        X,
        budget=Channels(0.5),
        round_to=1,
        min_width=1,
        selector=First(),
        formulation=formulation,
        refit=Refit(joint=0, rounds=0),
        resources=Resources(holdout=0, shifts=False),
        gates=Gates(accept_any=True),
    )
    return [numpy_helper.to_array(tensor) for tensor in found.model.graph.initializer]


def matrices(*sizes):
    rng = np.random.default_rng(1)
    return [rng.standard_normal(shape) for shape in pairwise(sizes)]


def least_squares(inputs, target):
    return np.linalg.lstsq(inputs, target, rcond=None)[0]


@pytest.mark.parametrize("formulation", [Asymmetric(), Sequential(), Layerwise()])
def test_rows_of_channels_that_others_make_go_to_these(formulation):
    first, second = matrices(4, 2, 3)
    double = np.concatenate([first, 2.0 * first[:, :1], first[:, :1] + first[:, 1:]], axis=1)
    rows = np.concatenate([second, np.random.default_rng(2).standard_normal((2, 3))])
    kept, reader = halved(formulation, double, rows)
    np.testing.assert_array_equal(kept, first.astype(np.float32))
    np.testing.assert_allclose(reader, [rows[0] + 2.0 * rows[2] + rows[3], rows[1] + rows[3]], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("formulation", [Asymmetric(), Sequential(), Layerwise()])
def test_formulations_differ_in_whose_inputs_and_whose_outputs_are_fitted(formulation):
    weights = matrices(4, 6, 6, 3)
    one = X @ weights[0]
    two = np.maximum(one @ weights[1], 0.0)
    first, second, third = halved(formulation, *weights, relu=[1])
    made = least_squares(one[:, :3], one @ weights[1])
    np.testing.assert_array_equal(first, weights[0][:, :3].astype(np.float32))
    np.testing.assert_allclose(second, made[:, :3], atol=0.03)
    now = np.maximum(one[:, :3] @ made, 0.0)
    problems = {
        Asymmetric(): (now[:, :3], two @ weights[2]),
        Sequential(): (now[:, :3], now @ weights[2]),
        Layerwise(): (two[:, :3], two @ weights[2]),
    }
    beyond = {
        kind: np.linalg.norm(inputs @ third - target) / np.linalg.norm(inputs @ least_squares(inputs, target) - target)
        for kind, (inputs, target) in problems.items()
    }
    assert beyond[formulation] < 1.02
    assert min(beyond.values()) == beyond[formulation]
