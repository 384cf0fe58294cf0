"""What is fitted on one half of the samples is judged on the other."""

import numpy as np
import pytest

from onnx_subprune.calibration.moments.halves import Halves
from onnx_subprune.reconstruction.crossfit import Pull, crossfit, pull_of
from tests.calibration.moments.test_halves import moments_of

RNG = np.random.default_rng(3)
WEIGHTS = RNG.standard_normal((30, 4))
ALIVE = (np.arange(30) < 20)[None]


def parts_of(samples: int):
    mixed = RNG.standard_normal((40, 30)) / 6
    return [RNG.standard_normal((samples, 40)) @ mixed for _ in range(3)]


@pytest.mark.parametrize("samples", [8, 16, 64, 512])
def test_the_error_is_that_of_samples_that_were_not_seen(samples):
    first, second, _ = parts_of(samples)
    use = Halves.of([moments_of(part, WEIGHTS) for part in (first, second)])
    pull = pull_of(use, WEIGHTS[None], ALIVE, free_bias=True)
    found = crossfit(use, WEIGHTS[None], [ALIVE, ALIVE], pull, free_bias=True)
    lost, energy = 0.0, 0.0
    for weights, judge in zip(found.weights, (second, first), strict=True):
        assert not weights[0][20:].any()
        away = judge @ (weights[0] - WEIGHTS)
        lost += np.sum((away - away.mean(axis=0)) ** 2)
        energy += np.sum((judge @ WEIGHTS - (judge @ WEIGHTS).mean(axis=0)) ** 2)
    assert found.error == pytest.approx(lost / energy, rel=1e-6)


@pytest.mark.parametrize("samples", [3, 8, 512])
def test_it_is_never_above_that_of_the_old_weights(samples):
    use = Halves.of([moments_of(part, WEIGHTS) for part in parts_of(samples)[:2]])
    slices = crossfit(use, WEIGHTS[None], [ALIVE, ALIVE], None, free_bias=False)
    assert not slices.refitted
    for pull in (Pull(1e-9), Pull(1e-2, rescaled=True), Pull(1.0)):
        found = crossfit(use, WEIGHTS[None], [ALIVE, ALIVE], pull, free_bias=False)
        assert found.error <= slices.error
        assert found.refitted == (found.error < slices.error)


def test_twenty_columns_do_not_explain_twenty_rows():
    use = Halves.of([moments_of(part, WEIGHTS) for part in parts_of(10)[:2]])
    pull = pull_of(use, WEIGHTS[None], ALIVE, free_bias=False)
    assert crossfit(use, WEIGHTS[None], [ALIVE, ALIVE], pull, free_bias=False).error > 0.1


def test_one_half_may_be_fitted_alone_and_the_other_one_judges():
    *both, other = (moments_of(part, WEIGHTS) for part in parts_of(512))
    pull = Pull(1e-3)

    found = crossfit(Halves.of(both), WEIGHTS[None], [ALIVE], pull, free_bias=False)

    assert len(found.weights) == len(found.biases) == 1
    assert found.error == pytest.approx(both[1].error(found.weights[0]), rel=1e-9)
    elsewhere = crossfit(Halves.of([both[0], other]), WEIGHTS[None], [ALIVE], pull, free_bias=False)
    assert np.array_equal(elsewhere.weights[0], found.weights[0])  # whoever judges
    assert elsewhere.error != found.error
