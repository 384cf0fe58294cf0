"""Channels whose moments are nothing but rounding: constant ones, and those that some taps of a kernel never see."""

import numpy as np
import pytest

from onnx_subprune.calibration.moments.accumulator import Collector
from onnx_subprune.calibration.moments.moments import Moments
from onnx_subprune.calibration.moments.unfold import rows, unfold
from onnx_subprune.graph.contractions.convolution import Conv
from onnx_subprune.selection import Problem, selectors

CHANNELS, OUTPUTS, TAPS = 48, 12, 9
CONSTANT, BORDER = 2, 5
KERNEL = Conv(node="conv", kernel=(3, 3), strides=(1, 1), dilations=(1, 1), pads=(1, 1, 1, 1))


def images() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, targets and the weights that give the targets; two channels are special."""
    generator = np.random.default_rng(3)
    x = np.maximum(generator.standard_normal((24, CHANNELS, 8, 8)), 0.0).astype(np.float32)
    x[:, CONSTANT] = 4.7
    x[:, BORDER, 1:] = 0.0  # the top row alone: taps above it see nothing
    x[:, BORDER, 0] *= 300.0
    weights = generator.standard_normal((1, CHANNELS * TAPS, OUTPUTS)) * np.repeat(
        np.linspace(0.1, 2.0, CHANNELS), TAPS
    ).reshape(1, -1, 1)
    y = unfold(KERNEL, x).astype(np.float64)[0] @ weights[0]
    return x, np.moveaxis(y.reshape(24, 8, 8, OUTPUTS), 3, 1).astype(np.float32), weights


def exact(x: np.ndarray, y: np.ndarray) -> Moments:
    """The moments in float64, about the means."""
    inputs, target = (part[0].astype(np.float64) for part in (unfold(KERNEL, x), rows(KERNEL, y)))
    inputs, target = inputs - inputs.mean(axis=0), target - target.mean(axis=0)
    return Moments(
        count=float(len(inputs)),
        gram=(inputs.T @ inputs)[None],
        cross=(inputs.T @ target)[None],
        energy=np.sum(target**2, axis=0)[None],
        sum_input=np.zeros((1, inputs.shape[1])),
        sum_target=np.zeros((1, OUTPUTS)),
    )


def collected(x: np.ndarray, y: np.ndarray) -> Moments:
    collector = Collector(KERNEL)
    for start in range(0, len(x), 8):
        collector.add(x[start : start + 8], y[start : start + 8])
    return collector.moments()


def problem_of(moments: Moments, weights: np.ndarray) -> Problem:
    columns = np.arange(CHANNELS * TAPS)
    return moments.problem(columns.reshape(CHANNELS, TAPS), weights, columns)


def test_columns_without_any_energy_have_none_and_explain_nothing() -> None:
    x, y, _ = images()
    moments, reference = collected(x, y), exact(x, y)
    raw, about = (np.diagonal(item.gram[0]).reshape(CHANNELS, TAPS) for item in (moments, moments.centered()))
    unseen = np.arange(TAPS) >= 6  # the lowest row of the kernel reads from the second row of the image on
    assert not raw[BORDER, unseen].any()
    assert (raw[BORDER, ~unseen] > 0.0).all()
    inside = np.full(TAPS, False)
    inside[4] = True  # the others see the zeros around the image too
    assert not about[CONSTANT, inside].any()
    assert (about[CONSTANT, ~inside] > 0.0).all()
    silent = np.diagonal(moments.centered().gram[0]) == 0.0
    assert not moments.centered().cross[0][silent].any()
    np.testing.assert_allclose(moments.centered().gram, reference.gram, atol=1e-6 * reference.gram.max())


@pytest.mark.parametrize("name", ["forward", "backward", "refined"])
def test_a_selection_claims_no_more_than_its_best_weights_keep(name: str) -> None:
    x, y, weights = images()
    found, reference = (problem_of(item, weights) for item in (collected(x, y).centered(), exact(x, y)))
    for size in (6, 24, 40):
        choice = selectors(0)[name].path([found], [size], np.zeros(CHANNELS, np.int64))[0]
        best = selectors(0)[name].path([reference], [size], np.zeros(CHANNELS, np.int64))[0]
        assert choice.error == pytest.approx(reference.error(choice.support), rel=1e-3, abs=1e-5)
        assert choice.support == best.support


def test_a_new_target_has_no_part_of_a_silent_column() -> None:
    x, y, _ = images()
    again = collected(x, y).centered().retargeted(collected(x, y + x[:, CONSTANT, None].repeat(OUTPUTS, axis=1)))
    assert not again.cross[0][np.diagonal(again.gram[0]) == 0.0].any()
