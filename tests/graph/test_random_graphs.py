"""Properties of random networks that combine the patterns."""

import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnx_subprune.evaluation.verification import law
from onnx_subprune.graph.network import load
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.graph.tracing.trace import trace
from tests.networks.check import feeds_of, supports_of, weigh
from tests.networks.random_graphs import random_network


@settings(deadline=None, derandomize=True, max_examples=60, suppress_health_check=list(HealthCheck))
@given(data=st.data(), opset=st.sampled_from((9, 11, 13, 17, 21)), steps=st.integers(1, 7))
def test_slicing_equals_masking_on_random_networks(data: st.DataObject, opset: int, steps: int):
    model = random_network(opset, lambda below: data.draw(st.integers(0, below - 1)), steps)
    onnx.checker.check_model(model, full_check=True)
    network = load(model)
    graph = trace(network)
    supports = supports_of(graph, 1)
    assert law(network, graph, supports, feeds_of(network, 3, 0)) < 1e-5
    small = apply(network, graph, Plan(supports=supports))
    onnx.checker.check_model(small, full_check=True)
    foretold, measured = weigh(network, graph, supports, small)
    assert foretold == measured
