"""The pass in Olive's own engine. Olive brings PyTorch, so this is no part of the usual run: see CONTRIBUTING.md for the environment."""

import json

import numpy as np
import onnx
import pytest

from tests.small import fill

pytest.importorskip("olive")
from olive.package_config import OlivePackageConfig
from olive.workflows import run

from onnx_subprune.integrations.olive import package_config

pytestmark = pytest.mark.filterwarnings("default")  # those of Olive and what it brings


def workflow(folder, **settings):
    return {
        "input_model": {"type": "ONNXModel", "model_path": str(folder / "model.onnx")},
        "passes": {"prune": {"type": "Subprune", "budget": 0.5, **settings}},
        "output_dir": str(folder / "out"),
        "cache_dir": str(folder / "cache"),
        "log_severity_level": 3,
    }


def test_olive_finds_the_pass_beside_its_own():
    config = OlivePackageConfig.model_validate(package_config())
    assert config.import_pass_module("Subprune").__name__ == "Subprune"
    assert config.get_pass_module_config("OnnxFloatToFloat16")


def test_a_workflow_prunes(tmp_path):
    fill(tmp_path)
    package = tmp_path / "package.json"
    package.write_text(json.dumps(package_config()))
    run(
        workflow(tmp_path, data=str(tmp_path / "calibration.npz"), options={"round_to": 1}), package_config=str(package)
    )
    [found] = (tmp_path / "out").rglob("*.onnx")
    before, after = onnx.load(tmp_path / "model.onnx"), onnx.load(found)
    onnx.checker.check_model(after)
    assert after.ByteSize() < 0.8 * before.ByteSize()
    assert [port.name for port in after.graph.output] == [port.name for port in before.graph.output]


def test_olives_data_containers_are_read(tmp_path):
    fill(tmp_path)
    package = tmp_path / "package.json"
    package.write_text(json.dumps(package_config()))
    steps = workflow(tmp_path, data_config="noise", budget_of="channels", options={"round_to": 1})
    files = tmp_path / "raw" / "input"
    files.mkdir(parents=True)
    for number, sample in enumerate(np.load(tmp_path / "calibration.npz")["input"]):
        sample.tofile(files / f"{number}.bin")
    shape = {"data_dir": str(files.parent), "input_names": ["input"], "input_shapes": [[3, 8, 8]]}
    load = {"type": "raw_dataset", "params": shape}
    steps["data_configs"] = [{"name": "noise", "type": "DataContainer", "load_dataset_config": load}]
    run(steps, package_config=str(package))
    assert [*(tmp_path / "out").rglob("*.onnx")]
