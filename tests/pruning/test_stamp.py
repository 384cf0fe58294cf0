"""What a pruned model says of itself."""

import onnx
import pytest
from onnx import version_converter

from onnx_subprune import Channels, Resources, prune
from onnx_subprune._version import __version__
from tests.small import fill, small_model


def entries(item):
    return {entry.key: entry.value for entry in item.metadata_props}


@pytest.mark.parametrize("ir_version", [8, 10])
def test_model_and_layers_say_what_became_of_their_widths(tmp_path, ir_version):
    fill(tmp_path)
    model = small_model() if ir_version == 8 else version_converter.convert_version(small_model(), 21)
    model.ir_version = ir_version
    model.metadata_props.add(key="author", value="me")
    model.metadata_props.add(key="onnx_subprune.version", value="of an earlier pruning")
    before = model.SerializeToString()
    x = tmp_path / "calibration.npz"
    result = prune(model, x, budget=Channels(0.5), round_to=8, resources=Resources(threads=1))
    small = result.model
    assert result.report.size.after == small.ByteSize()
    assert model.SerializeToString() == before
    assert entries(small) == {
        "author": "me",
        "onnx_subprune.version": __version__,
        "onnx_subprune.widths": "conv1: 16 to 8, conv2: 24 to 8",
    }
    said = {node.name: entries(node) for node in small.graph.node if entries(node)}
    layers = {"conv1": "16 to 8", "conv2": "24 to 8"} if ir_version >= 10 else {}
    assert said == {name: {"onnx_subprune.group": name, "onnx_subprune.width": w} for name, w in layers.items()}
    onnx.checker.check_model(small, full_check=True)
