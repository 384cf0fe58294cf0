"""Fits on moments: the first, and those of renewed targets or moved inputs."""

import numpy as np
import pytest

from onnx_subprune.calibration.moments.halves import Halves
from onnx_subprune.calibration.moments.moments import Moments
from onnx_subprune.reconstruction.fit import Known, fit, fit_again

RNG = np.random.default_rng(11)


def moments_of(x: np.ndarray, target: np.ndarray) -> Moments:
    return Moments(
        count=float(len(x)),
        gram=(x.T @ x)[None],
        cross=(x.T @ target)[None],
        energy=(target**2).sum(axis=0)[None],
        sum_input=x.sum(axis=0)[None],
        sum_target=target.sum(axis=0)[None],
    )


def problem(targets: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Inputs of two halves with means of their own, the weights that made the targets, and those that the layer has."""
    x = [RNG.standard_normal((600, 24)) @ np.diag(np.linspace(0.5, 2, 24)) + 3.0 for _ in range(2)]
    made = RNG.standard_normal((24, targets))
    return x, made, made + 0.3 * RNG.standard_normal(made.shape)


@pytest.mark.parametrize("targets", [5, 300])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_fit_finds_weights_and_bias_of_the_living_columns(targets, threads):
    x, made, prior = problem(targets)
    alive = np.arange(24) % 3 > 0
    halves = Halves.of([moments_of(part, part[:, alive] @ made[alive] + 1.5) for part in x])
    found = fit(halves, prior[None], alive, free_bias=True, known=Known(threads=threads))
    assert found.refitted
    assert found.heldout_error < 1e-6 < found.plain_error
    np.testing.assert_allclose(found.weights[0][alive], made[alive], atol=1e-3)
    assert not found.weights[0][~alive].any()
    np.testing.assert_allclose(found.bias, 1.5, atol=0.05)


@pytest.mark.parametrize("kept", [True, False])
def test_renewed_targets_are_met_with_what_is_known_of_the_inputs(kept):
    x, made, prior = problem(5)
    alive = np.arange(24) % 3 > 0
    known = Known(1 << 20 if kept else 0)
    halves = Halves.of([moments_of(part, part[:, alive] @ made[alive]) for part in x])
    first = fit(halves, prior[None], alive, free_bias=True, known=known)
    whole = np.concatenate(x)
    renewed = moments_of(whole, whole[:, alive] @ (2 * made[alive]) - 1.0)
    again = fit_again(renewed, first, alive, known)
    fresh = fit_again(renewed, first, alive, Known())
    np.testing.assert_allclose(again.weights[0][alive], 2 * made[alive], atol=1e-3)
    np.testing.assert_allclose(again.weights, fresh.weights, atol=1e-9)
    np.testing.assert_allclose(again.bias, fresh.bias, atol=1e-6)
    assert again.strengths == first.strengths
    assert again.heldout_error == first.heldout_error


def test_a_plain_slice_stays_plain_and_moves_its_bias_alone():
    x = [RNG.standard_normal((6, 24)) for _ in range(2)]
    prior = RNG.standard_normal((24, 2))
    noise = [part @ prior + RNG.standard_normal((6, 2)) for part in x]
    alive = np.ones(24, bool)
    known = Known()
    halves = Halves.of([moments_of(part, target) for part, target in zip(x, noise, strict=True)])
    first = fit(halves, prior[None], alive, free_bias=True, strengths=(1e-7,), known=known)
    assert not first.refitted
    again = fit_again(halves.whole, first, alive, known)
    assert np.array_equal(again.weights[0], prior)
    np.testing.assert_allclose(
        again.bias[0], np.mean(np.concatenate(noise) - np.concatenate(x) @ prior, axis=0), rtol=1e-9
    )


@pytest.mark.parametrize(("columns", "targets"), [(9, 1), (25, 2)])
@pytest.mark.parametrize("free_bias", [True, False])
@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_many_small_groups_at_once_are_fitted_as_each_alone(columns, targets, free_bias, noise):
    """A depthwise convolution; its third channel is dead, nothing is asked of its fifth, and the sixth reads zeros."""
    groups = 7
    made = RNG.standard_normal((groups, columns, targets))
    prior = made + 0.3 * RNG.standard_normal(made.shape)

    def half() -> list[Moments]:
        x = RNG.standard_normal((groups, 40, columns)) + RNG.standard_normal((groups, 1, columns))
        x[5] = 0.0
        target = x @ made + noise * RNG.standard_normal((groups, 40, targets)) + 1.0
        target[4] = 0.0
        return [moments_of(*each) for each in zip(x, target, strict=True)]

    names = ("gram", "cross", "energy", "sum_input", "sum_target")
    halves = [half(), half()]
    joined = [
        Moments(count=40.0, **{n: np.concatenate([getattr(m, n) for m in part]) for n in names}) for part in halves
    ]
    alive = np.arange(groups) != 2
    known = Known(1 << 20)
    found = fit(Halves.of(joined), prior, np.repeat(alive, columns), free_bias=free_bias, known=known)
    again = fit_again(
        Halves.of(joined).whole.shifted(np.full((groups, targets), 0.5)),
        found,
        np.repeat(alive, columns),
        known if free_bias else Known(),
    )
    assert not found.weights[2].any()
    assert found.refitted
    assert len(found.strengths) == groups
    for g in np.flatnonzero(alive):
        alone = Halves.of([part[g] for part in halves])
        every = np.ones(columns, bool)
        one = fit(alone, prior[g : g + 1], every, free_bias=free_bias)
        if one.refitted:
            np.testing.assert_allclose(found.weights[g], one.weights[0], atol=1e-6)
            assert found.strengths[g] == one.strengths[0]
            whole = alone.whole.shifted(np.full((1, targets), 0.5))
            np.testing.assert_allclose(again.weights[g], fit_again(whole, one, every, Known()).weights[0], atol=1e-6)
