"""Every pattern through the whole of `prune`: choose, refit, cut, verify."""

import pytest

from onnx_subprune import Channels, prune
from onnx_subprune.graph.network import load
from tests.networks.check import feeds_of
from tests.networks.patterns import PATTERNS, Pattern

ONE_FLAG = "if-bodies-capture"
"""Has an input that is not one a sample, which calibration data cannot give: refused in one line."""
PRUNED = [pytest.param(p, id=p.name) for p in PATTERNS if p.widths and p.name != ONE_FLAG]


@pytest.mark.parametrize("pattern", PRUNED)
def test_a_pattern_goes_through_the_whole_prune_with_refit(pattern: Pattern):
    model = pattern.model(pattern.opsets[-1])
    found = prune(model, feeds_of(load(model), 12, 0), budget=Channels(0.5))
    assert found.report.params.after < found.report.params.before
    assert found.report.deviation < 0.05
