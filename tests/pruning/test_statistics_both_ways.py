"""What can be pruned from data can be pruned from moments in a file: all patterns, also those that carry channels on (depthwise)."""

from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

from onnx_subprune import Channels, Gates, Layerwise, Resources, collect, prune, prune_collected
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


@pytest.mark.parametrize("name", ["flatten-with-extent", "batch-normalization-before-flatten"])
def test_moments_of_a_file_give_what_the_same_samples_give(name, tmp_path: Path):
    proto = next(pattern for pattern in PATTERNS if pattern.name == name).model(17)
    data, given = feeds_of(load(proto), 24, 0), {"budget": Channels(0.5), "round_to": 1}
    collect(proto, data, tmp_path / "s.npz")
    found = prune_collected(proto, tmp_path / "s.npz", **given)
    resources = Resources(holdout=0, shifts=False)  # files of moments know neither
    other = prune(proto, data, formulation=Layerwise(), resources=resources, gates=Gates(accept_any=True), **given)
    for ours, theirs in zip(found.report.groups, other.report.groups, strict=True):
        assert ours.kept == theirs.kept
        assert [item.fitted_error for item in ours.consumers] == pytest.approx(
            [item.fitted_error for item in theirs.consumers]
        )
    weights = (item.model.graph.initializer for item in (found, other))
    for one, two in zip(*weights, strict=True):
        assert np.allclose(numpy_helper.to_array(one), numpy_helper.to_array(two), rtol=1e-4, atol=1e-5)
