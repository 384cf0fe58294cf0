"""What several tests need: the sample models, and others beside the project where they are there."""

import os
from pathlib import Path

import numpy as np
import pytest

os.environ["ONNX_SUBPRUNE_CACHE"] = ""  # a test measures for itself, and leaves nothing in the user's cache
ROOT = Path(__file__).parents[1]
MODELS = ROOT / "models"
SHARED = Path(os.environ.get("ONNX_SUBPRUNE_SHARED", ROOT.parent / "shared"))
"""Further real models and images to test with; tests that use them skip where they are missing."""


@pytest.fixture(scope="session")
def images():
    """All calibration inputs beside the sample models, (512, 1, 28, 28) float32."""
    return np.load(MODELS / "fashion_calibration.npz")["input"]


@pytest.fixture
def few(images):
    """64 calibration inputs."""
    return images[:64]


def sample_models():
    return [MODELS / f"{name}_fashion.onnx" for name in ("lenet", "lenet_300_100", "resnet")]


def all_models():
    return sample_models() + (sorted((SHARED / "models").glob("*.onnx")) if SHARED.is_dir() else [])
