"""A reader and its producer, refitted together."""

from itertools import pairwise

import numpy as np
import pytest

from onnx_subprune import Channels, Gates, Refit, Resources, prune
from onnx_subprune.reconstruction import joint_refit
from tests.networks.net import Net

X = np.random.default_rng(3).standard_normal((96, 8)).astype(np.float32)


def network(biased):
    """Three dense layers, whose biases are theirs or stand in an Add behind them."""
    net = Net(seed=5)
    last, sizes = net.input(["n", 8]), (8, 16, 12, 4)
    for index, (reads, width) in enumerate(pairwise(sizes)):
        last = biased(net, last, net.weight(reads, width), net.weight(width))
        last = net.relu(last) if index < 2 else last
    net.output(last, 2)
    return net.model()


BIASED = {
    "behind": lambda net, x, weight, bias: net("Add", net("MatMul", x, weight), bias),
    "inside": lambda net, x, weight, bias: net("Gemm", x, weight, bias),
}


@pytest.mark.parametrize("where", BIASED)
def test_a_step_that_is_taken_back_leaves_nothing_behind(where, monkeypatch):
    model = network(BIASED[where])
    common = {"budget": Channels(0.5), "round_to": 1, "resources": Resources(threads=1, holdout=0)}

    def pruned(joint):
        return prune(model, X, **common, refit=Refit(joint=joint), gates=Gates(accept_any=True)).model

    with_steps, without = pruned(2), pruned(0)
    assert with_steps != without
    steps = []
    monkeypatch.setattr(joint_refit, "reach", lambda *_: steps.append(1) or 1.0)
    monkeypatch.setattr(joint_refit.Joint, "_left", lambda _: np.inf)  # no step makes anything better
    assert pruned(2) == without
    assert steps
