"""What says how good the sample models are, and what of them can go; they were trained elsewhere."""

import re

import numpy as np
import pytest

from tests.conftest import MODELS
from tools.enlarged_pictures import halved, pairs_of, tiles_of
from tools.measures import ACCURACY, PERPLEXITY, PSNR
from tools.sample_scores import MEASURES, read, scores, task_of

JUDGED, NEAR = 60, 0.06
"""Test samples that the files are judged by here, and how far they may be, relatively, from what all say."""


def test_a_model_that_knows_nothing_is_as_perplexed_as_there_are_symbols():
    labels = np.arange(12).reshape(3, 4)
    assert PERPLEXITY.sum_up(PERPLEXITY.each(np.zeros((3, 4, 12), np.float32), labels)) == pytest.approx(12)
    sure = np.where(np.arange(12) == labels[..., None], np.float32(1000), np.float32(0))
    assert PERPLEXITY.sum_up(PERPLEXITY.each(sure, labels)) == pytest.approx(1)


def test_pictures_that_are_off_by_a_tenth_of_the_range_are_at_twenty_decibels_and_what_is_out_of_range_is_clipped():
    wanted = np.full((2, 3, 4, 4), 100, np.uint8)
    np.testing.assert_allclose(PSNR.each(wanted + np.float32(25.5), wanted), 20)
    np.testing.assert_allclose(PSNR.each(np.full((2, 3, 4, 4), 1e6, np.float32), wanted), 20 * np.log10(255 / 155))


def test_points_lost_are_those_of_accuracy():
    assert ACCURACY.sum_up(ACCURACY.each(np.eye(4), np.array([0, 1, 2, 0]))) == 75
    assert ACCURACY.lost(90, 88.5) == 1.5


def test_pairs_are_pictures_and_their_halves():
    photo = np.random.default_rng(0).integers(0, 256, (64 * 2 + 10, 64 * 3 + 1, 3)).astype(np.uint8)
    pairs = pairs_of(tiles_of(photo))
    assert pairs.large.shape == (6, 3, 64, 64)
    np.testing.assert_array_equal(pairs.small[4].transpose(1, 2, 0), halved(photo[64:128, 64:128]))


@pytest.mark.parametrize("name", ["mobile_fashion", "vit_fashion", "gpt_text", "superres"])
def test_the_files_are_as_good_as_their_table_says(name):
    row = re.search(
        rf"^\| `{name}\.onnx` .*\| ([\d.]+)\S* ?(?:dB)? \|$", (MODELS / "README.md").read_text(encoding="utf-8"), re.M
    )
    task = task_of(name)
    labels = np.load(MODELS / f"{task}_test_labels.npy")[:JUDGED]
    found = scores(MODELS / f"{name}.onnx", read(task, "test")[:JUDGED], labels, MEASURES[task])
    assert MEASURES[task].sum_up(found) == pytest.approx(float(row[1]), rel=NEAR)
