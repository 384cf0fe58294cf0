"""The step of a producer, and how far it goes."""

import numpy as np
import pytest

from onnx_subprune.calibration.moments.moments import Moments
from onnx_subprune.reconstruction.producers.gauss_newton import direction, reach


def moments_of(x, target):
    return Moments(
        count=float(len(x)),
        gram=(x.T @ x)[None],
        cross=(x.T @ target)[None],
        energy=np.sum(target**2, axis=0)[None],
        sum_input=x.sum(axis=0)[None],
        sum_target=target.sum(axis=0)[None],
    )


def step_of(moments, curvature, alive, *, free_bias):
    gram = (moments.centered() if free_bias else moments).gram
    return direction(moments, gram, curvature, alive, free_bias=free_bias)


def rows(samples=4000, columns=6, seed=0):
    generator = np.random.default_rng(seed)
    return generator, generator.standard_normal((samples, columns)) + 1.0


def test_with_a_linear_reader_the_step_is_least_squares():
    generator, x = rows()
    reader = generator.standard_normal((3, 5))
    wanted, shift = generator.standard_normal((6, 3)), np.array([0.5, -1.0, 2.0])
    residual = (x @ wanted + shift) @ reader
    step = step_of(moments_of(x, residual @ reader.T), reader @ reader.T, np.ones((1, 6), bool), free_bias=True)
    np.testing.assert_allclose(step.weights[0], wanted, atol=0.1)
    np.testing.assert_allclose(step.bias[0], shift, atol=0.2)
    left = residual - (x @ step.weights[0] + step.bias[0]) @ reader
    assert np.sum(left**2) < 1e-2 * np.sum(residual**2)


def test_the_slope_is_how_fast_half_the_energy_falls():
    generator, x = rows(200)
    residual = generator.standard_normal((200, 3))
    step = step_of(moments_of(x, residual), np.eye(3), np.ones((1, 6), bool), free_bias=True)
    moved = residual - 1e-4 * (x @ step.weights[0] + step.bias[0])
    assert step.slope == pytest.approx(np.sum(residual**2 - moved**2) / 2e-4, rel=1e-3)


def test_inputs_that_are_dropped_get_no_weight_whether_they_were_collected_or_not():
    generator, x = rows(300)
    target, alive = generator.standard_normal((300, 2)), np.array([[True, False, True, True, False, True]])
    whole = step_of(moments_of(x, target), np.eye(2), alive, free_bias=False)
    living = step_of(moments_of(x[:, alive[0]], target), np.eye(2), alive, free_bias=False)
    assert whole.bias is None
    assert not whole.weights[0][~alive[0]].any()
    np.testing.assert_allclose(whole.weights, living.weights, rtol=1e-9)
    assert whole.slope == pytest.approx(living.slope)


def test_the_reach_is_the_lowest_point_of_the_parabola():
    for at, bend in ((0.3, 2.0), (1.7, 0.5)):
        slope = at * bend
        assert reach(10.0, slope, 10.0 - 2 * slope + bend) == pytest.approx(at)
    assert reach(10.0, -1.0, 12.5) == 0.0
    assert reach(10.0, 1.0, 7.0) == 2.0
