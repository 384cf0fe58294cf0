"""Refits that leave the domain of what follows are taken back."""

import numpy as np

from onnx_subprune import Channels, Macs, Resources, prune
from onnx_subprune.graph.network import load
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.reconstruction.domain import partial_behind
from onnx_subprune.runtime.session import Session
from tests.networks.net import Net

ONE = Resources(threads=1, trials=0, shifts=False, holdout=0)


def of_powers():
    """Squares of 12 projections, summed by two, and the logarithm of that."""
    net = Net(seed=2)
    spread = net("MatMul", net.input(["n", 8]), net.weight(8, 12))
    spread = net("Mul", spread, net("Sigmoid", net("Mul", spread, net.constant(np.float32(8)))))
    pairs = net.constant(np.kron(np.eye(6), np.ones((2, 1))).astype(np.float32))
    power = net("Gemm", net("Mul", spread, spread), pairs, net.constant(np.full(6, 1e-6, np.float32)))
    net.output(net.dense(net.relu(net.dense(net("Log", power), 6, 16)), 16, 3), 2)
    return net.model()


def test_what_is_not_defined_everywhere_is_found_behind_a_layer():
    network = load(of_powers())
    graph = trace(network)
    found = [partial_behind(network, item, list(graph.contractions)) for item in graph.contractions]
    assert [[*ends.values()] for ends in found] == [[], ["Log"], [], []]


def test_the_logarithm_of_a_refitted_power_is_a_number_and_the_report_says_what_was_kept():
    x = np.random.default_rng(0).standard_normal((128, 8)).astype(np.float32)
    kept = []
    for budget in (Channels(0.6), Macs(0.8)):
        found = prune(of_powers(), x, budget=budget, round_to=1, resources=ONE)
        assert all(np.isfinite(value).all() for value in Session(found.model).run({"x": x}).values())
        kept += [note for note in found.report.notes if "keeps its old weights" in note]
    assert all("Log" in note for note in kept)
    assert kept
