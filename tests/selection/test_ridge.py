"""Laws of the ridge regression."""

import numpy as np
import pytest

from onnx_subprune.selection import Normal, cross_validated, pseudo_solve, ridge
from onnx_subprune.selection.linalg.ridge import Factors


def normal(inputs, outputs):
    energies = (outputs**2).sum(axis=0)
    return Normal(gram=inputs.T @ inputs, cross=inputs.T @ outputs, energies=energies, rows=float(len(inputs)))


def test_without_strength_it_is_least_squares_and_with_much_it_is_the_prior():
    generator = np.random.default_rng(0)
    inputs, outputs, prior = (generator.standard_normal(shape) for shape in ((50, 6), (50, 3), (6, 3)))
    moments = normal(inputs, outputs)
    assert ridge(moments.gram, moments.cross, prior, 0.0) == pytest.approx(np.linalg.lstsq(inputs, outputs)[0])
    assert ridge(moments.gram, moments.cross, prior, 1e12) == pytest.approx(prior, abs=1e-8)


def test_a_prior_that_is_right_is_kept_whatever_the_strength():
    generator = np.random.default_rng(1)
    inputs, prior = generator.standard_normal((50, 6)), generator.standard_normal((6, 3))
    moments = normal(inputs, inputs @ prior)
    for strength in (1e-6, 1e-2, 10.0):
        assert ridge(moments.gram, moments.cross, prior, strength) == pytest.approx(prior)


def test_dependent_columns_get_the_smallest_weights():
    generator = np.random.default_rng(2)
    half = generator.standard_normal((50, 3))
    inputs, outputs = np.hstack([half, half]), generator.standard_normal((50, 2))
    moments = normal(inputs, outputs)
    assert pseudo_solve(moments.gram, moments.cross) == pytest.approx(np.linalg.lstsq(inputs, outputs, rcond=1e-8)[0])


def test_cross_validation_pulls_harder_when_there_are_fewer_samples():
    generator = np.random.default_rng(3)
    prior = generator.standard_normal((20, 4))

    def best(samples):
        halves = []
        for _ in range(2):
            inputs = generator.standard_normal((samples, 20))
            halves.append(normal(inputs, inputs @ (prior + 1.0) + 2 * generator.standard_normal((samples, 4))))
        return cross_validated(halves[0], halves[1], prior)

    few, many = best(25), best(20000)
    assert few.strength > many.strength
    assert many.error < many.prior_error


def test_kept_factorizations_change_no_byte_and_stay_within_their_limit() -> None:
    generator = np.random.default_rng(3)
    inputs, prior = generator.standard_normal((60, 12)), generator.standard_normal((12, 4))
    gram = inputs.T @ inputs
    for limit, left in ((0, 0), (gram.nbytes, 0), (10 * gram.nbytes, 8 * gram.nbytes)):
        factors = Factors(limit)
        for _ in range(3):
            cross = inputs.T @ generator.standard_normal((60, 4))
            for strength in (1e-3, 1e-1):
                found = ridge(gram, cross, prior, strength, factors.of(0))
                assert found.tobytes() == ridge(gram, cross, prior, strength).tobytes()
        assert factors.left == left


def test_weights_that_put_out_too_little_are_scaled_where_rows_are_too_few_for_more():
    generator = np.random.default_rng(5)
    prior = generator.standard_normal((200, 3))
    factors = np.array([1.5, 2.0, 0.5])
    halves = []
    for _ in range(2):
        inputs = generator.standard_normal((8, 200))
        halves.append(normal(inputs, inputs @ prior * factors))
    found = cross_validated(halves[0], halves[1], prior)
    assert found.rescaled
    assert found.error < 0.1 * found.prior_error
    assert halves[0].rescaled(prior) == pytest.approx(prior * factors)


def test_a_prior_without_output_stays_as_it_is():
    inputs = np.random.default_rng(6).standard_normal((8, 4))
    assert normal(inputs, inputs @ np.ones((4, 2))).rescaled(np.zeros((4, 2))) == pytest.approx(np.zeros((4, 2)))


def test_the_strength_for_very_many_columns_is_found_on_some_of_them(monkeypatch):
    generator = np.random.default_rng(8)
    prior = generator.standard_normal((90, 4))
    mixed = generator.standard_normal((90, 90)) / np.arange(1, 91)
    shift = 0.5 * generator.standard_normal((90, 4))
    halves = []
    for _ in range(2):
        inputs = generator.standard_normal((300, 90)) @ mixed
        outputs = inputs @ (prior + shift)
        halves.append(normal(inputs, outputs + generator.standard_normal((300, 4))))
    whole = cross_validated(halves[0], halves[1], prior)
    monkeypatch.setattr("onnx_subprune.selection.linalg.ridge.SEARCHED", 30)
    found = cross_validated(halves[0], halves[1], prior)
    assert found.prior_error == whole.prior_error
    assert found.error <= 1.2 * whole.error < 0.9 * found.prior_error
    assert whole.strength / 30 <= found.strength <= 30 * whole.strength


def test_what_does_not_depend_on_the_strength_is_computed_once_a_half(monkeypatch):
    asked = []
    rescaled = Normal.rescaled
    monkeypatch.setattr(Normal, "rescaled", lambda self, prior: asked.append(self) or rescaled(self, prior))
    random = np.random.default_rng(5)
    prior = random.standard_normal((6, 2))
    halves = []
    for _ in range(2):
        rows = random.standard_normal((40, 6))
        target = rows @ prior + random.standard_normal((40, 2))
        halves.append(normal(rows, target))
    cross_validated(*halves, prior)
    assert len(asked) == 2
