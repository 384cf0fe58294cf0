"""Every pattern that must work: the groups are found, slicing equals masking, the result is valid and costs what was foretold."""

import numpy as np
import onnx
import pytest

from onnx_subprune.evaluation.verification import law
from onnx_subprune.graph.costs.costs import costs
from onnx_subprune.graph.costs.count import multiply_accumulates
from onnx_subprune.graph.network import load
from onnx_subprune.graph.order import captured
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.graph.tracing.trace import trace
from tests.networks.check import feeds_of, supports_of, weigh
from tests.networks.patterns import PATTERNS, Pattern

CASES = [pytest.param(p, opset, id=f"{p.name}-opset{opset}") for p in PATTERNS for opset in p.opsets]
UNCHECKED = frozenset({"group-normalization-by-group", "stream-simplified"})
"""onnx.checker refuses these even before pruning: GroupNormalization of opset 18 is deprecated, SimplifiedLayerNormalization no operator of ONNX."""
MERGED = frozenset(
    {
        "one-bias-for-two-layers",
        "one-scale-for-two-normalisations",
        "shared-initializer-that-is-an-input",
        "initializer-that-is-an-output",
        "weights-behind-operators",
    }
)
"""One constant serves several groups, or is computed: foretold for groups of which all get narrower, so that it is cut, and copied."""


def unread(model: onnx.ModelProto) -> set[str]:
    """Constants of a model that nothing reads."""
    read = {name for node in model.graph.node for name in (*node.input, *captured(node))}
    return {tensor.name for tensor in model.graph.initializer} - read - {value.name for value in model.graph.output}


@pytest.mark.parametrize(("pattern", "opset"), CASES)
def test_a_pattern_is_pruned_or_refused_with_its_reason_and_slicing_equals_masking(pattern: Pattern, opset: int):
    network = load(pattern.model(opset))
    graph = trace(network)
    assert tuple(sorted(group.width for group in graph.groups)) == pattern.widths
    assert costs(network, graph).macs({}) == pytest.approx(multiply_accumulates(network, graph.observation))
    for piece in pattern.pinned:
        assert any(piece in pinned.reason for pinned in graph.pinned)
    for seed, batch in ((0, 1), (1, 3)):
        supports = supports_of(graph, seed)
        tolerance = 1e-2 if pattern.dtype == np.float16 else 1e-5
        assert law(network, graph, supports, feeds_of(network, batch, seed)) < tolerance
        small = apply(network, graph, Plan(supports=supports))
        if pattern.name not in UNCHECKED:
            onnx.checker.check_model(small, full_check=True)
        assert unread(small) <= unread(network.proto)
        foretold, measured = weigh(network, graph, supports, small)
        assert foretold[1] == measured[1]
        assert foretold[0] == measured[0] or (pattern.name in MERGED and abs(foretold[0] - measured[0]) <= 12)


def test_the_names_of_patterns_are_unique():
    assert len({pattern.name for pattern in PATTERNS}) == len(PATTERNS)


def test_nearly_all_patterns_are_pruned():
    """More than 95 % of the small networks, and at least sixty of them."""
    pruned = [pattern for pattern in PATTERNS if pattern.widths]
    assert len(PATTERNS) >= 60
    assert len(pruned) >= 0.95 * len(PATTERNS)
