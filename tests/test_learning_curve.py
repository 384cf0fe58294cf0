"""The tool that measures what more samples bring, on a small model."""

import json

import numpy as np
import pytest

from tests.conftest import MODELS
from tools.learning_curve import likeness, main

MODEL = MODELS / "lenet_300_100_fashion.onnx"
DATA = ["--data", str(MODELS / "fashion_calibration.npz"), "--test", str(MODELS / "fashion_test.npz")]


def test_a_curve_has_a_run_for_every_number_and_draw(tmp_path):
    methods = ["--methods", "wanda", "weight norm", "paper"]
    files = ["--json", str(tmp_path / "c.json"), "--plot", str(tmp_path / "c.png")]
    labels = ["--labels", str(MODELS / "fashion_test_labels.npy")]
    main(
        [
            str(MODEL),
            *DATA,
            *labels,
            "--params",
            "0.5",
            "--samples",
            "16",
            "64",
            "9999",
            "--draws",
            "2",
            *methods,
            *files,
        ]
    )
    found = json.loads((tmp_path / "c.json").read_text())
    assert {name: [*runs] for name, runs in found["runs"].items()} == {
        name: ["16", "64"]
        for name in ("the paper: forward, asymmetric, its own refit", "wanda, no refit", "weight norm, no refit")
    }
    assert all(len(draws) == 2 for runs in found["runs"].values() for draws in runs.values())
    norms = found["runs"]["weight norm, no refit"]
    assert len({*norms["16"], *norms["64"]}) == 1  # it looks at no sample
    assert found["unpruned"] == pytest.approx(89.45, abs=0.1)
    assert (tmp_path / "c.png").stat().st_size > 1000


def test_likeness_is_that_of_classes_or_of_directions():
    images = {"x": np.arange(6.0).reshape(3, 2)}
    original, other = (lambda inputs: inputs["x"]), (lambda inputs: inputs["x"] @ np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert likeness(original, images)(original) == 100.0
    assert likeness(original, images)(other) == 0.0
    tokens = {"x": np.ones((3, 2, 4))}
    assert likeness(original, tokens)(lambda inputs: 5 * inputs["x"]) == pytest.approx(100.0)
    assert likeness(original, tokens)(lambda inputs: -inputs["x"]) == pytest.approx(-100.0)
