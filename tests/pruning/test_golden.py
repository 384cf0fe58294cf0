"""What pruning the sample models gives, as it was: moves and tidying change nothing.

Other processors round otherwise, so that two channels that are as good as each other may change places. So the widths are compared exactly, what is
kept and what is put out nearly. A change that is meant: `python -m tests.pruning.test_golden` writes `golden.json` anew.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from onnx_subprune import Asymmetric, Channels, Layerwise, Resources, Sequential, prune
from onnx_subprune.runtime.session import Session
from tests.conftest import MODELS

GOLDEN = Path(__file__).with_name("golden.json")
FORMULATIONS = {"asymmetric": Asymmetric(), "sequential": Sequential(), "layerwise": Layerwise()}
NAMES = ("lenet_fashion", "lenet_300_100_fashion", "resnet_fashion", "gru_fashion", "lstm_words")
SAMPLES, UNSEEN = 48, 16
SAME, NEAR = 0.95, 0.02
"""The share of kept channels that are the same, and how far the error on samples that were not fitted may be off, relative to itself."""


def samples_of(name: str) -> np.ndarray:
    with np.load(MODELS / ("words_calibration.npz" if name == "lstm_words" else "fashion_calibration.npz")) as file:
        return file["input"][: SAMPLES + UNSEEN].astype(np.float32)


def pruned(name: str, formulation: str) -> dict[str, object]:
    path, data = MODELS / f"{name}.onnx", samples_of(name)
    found = prune(
        path,
        {"input": data[:SAMPLES]},
        budget=Channels(0.5),
        round_to=1,
        formulation=FORMULATIONS[formulation],
        resources=Resources(threads=1, holdout=0),
    )
    whole, small = (
        next(iter(Session(each, threads=1).run({"input": data[SAMPLES:]}).values())) for each in (path, found.model)
    )
    supports = {group.name: list(group.kept) for group in found.report.groups}
    return {"error": float(np.linalg.norm(small - whole) / np.linalg.norm(whole)), "supports": supports}


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("name", NAMES)
def test_the_sample_models_come_out_as_they_did(name, formulation):
    expected, found = json.loads(GOLDEN.read_text(encoding="utf-8"))[name][formulation], pruned(name, formulation)
    assert {group: len(kept) for group, kept in found["supports"].items()} == {
        group: len(kept) for group, kept in expected["supports"].items()
    }
    shared = sum(len(set(kept) & set(found["supports"][group])) for group, kept in expected["supports"].items())
    assert shared >= SAME * sum(map(len, expected["supports"].values()))
    assert found["error"] == pytest.approx(expected["error"], rel=NEAR)


if __name__ == "__main__":
    renewed = {name: {formulation: pruned(name, formulation) for formulation in FORMULATIONS} for name in NAMES}
    GOLDEN.write_text(json.dumps(renewed) + "\n", encoding="utf-8")
