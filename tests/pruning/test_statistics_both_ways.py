"""What can be pruned from data can be pruned from moments in a file: all patterns, also those that carry channels on (depthwise)."""

from pathlib import Path

import pytest

from onnx_subprune import Channels, collect, prune_collected
from onnx_subprune.errors import DataError
from onnx_subprune.graph.network import load
from tests.networks.check import feeds_of
from tests.networks.patterns import PATTERNS
from tests.networks.sharing import BUILDERS, network

SAMPLES = 4
TABLE = [(pattern.name, pattern.model, pattern.opsets[-1]) for pattern in PATTERNS if pattern.widths]
SHARED = [(name, lambda _, name=name: network(BUILDERS[name]), 17) for name in BUILDERS if name != "recurrent"]


@pytest.mark.filterwarnings("ignore:.*depends on the others beside it")
@pytest.mark.parametrize(("model", "opset"), [pytest.param(m, o, id=n) for n, m, o in (*TABLE, *SHARED)])
def test_a_pattern_is_pruned_from_moments_as_it_is_from_data(model, opset, tmp_path: Path):
    proto = model(opset)
    data = feeds_of(load(proto), SAMPLES, 0)
    try:
        collect(proto, data, tmp_path / "s.npz")
    except DataError as error:  # `prune` refuses it, too
        pytest.skip(str(error))
    found = prune_collected(proto, tmp_path / "s.npz", budget=Channels(0.5), round_to=1)
    narrower = [group for group in found.report.groups if group.width[1] < group.width[0]]
    assert narrower
    assert all(group.consumers for group in narrower)
    assert found.report.params.after < found.report.params.before
