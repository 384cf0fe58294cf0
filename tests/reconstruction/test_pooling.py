"""Contractions that have one weight are one regression, rows as well as moments."""

from dataclasses import replace

import numpy as np
import pytest

from onnx_subprune.calibration.moments.moments import Moments
from onnx_subprune.calibration.moments.rows import Rows
from onnx_subprune.reconstruction.pooling import pooled


def uses(columns=30):
    """The rows of three uses of a weight, about different means; a column is the same in all rows of a use, one is dead."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(3):
        source = (rng.standard_normal((6, columns)) + number).astype(np.float32)
        source[:, 3], source[:, 4] = number, 0.0
        found.append(Rows(input=source, target=rng.standard_normal((6, 2)) + number))
    return found


def test_rows_of_several_uses_are_those_of_one_each_about_its_own_means():
    parts = uses(columns=50)
    total = pooled([[part.centered() for part in parts]])[0]
    grams = [part.input.astype(np.float64) - part.input.astype(np.float64).mean(axis=0) for part in parts]
    targets = [part.target - part.target.mean(axis=0) for part in parts]
    source, target = total.centered()._matrices()
    np.testing.assert_allclose(source.T @ source, sum(rows.T @ rows for rows in grams), atol=1e-5)
    np.testing.assert_allclose(source.T @ target, sum(a.T @ b for a, b in zip(grams, targets, strict=True)), atol=1e-5)
    assert total.count == 18.0
    expected = sum((part.input.astype(np.float64) ** 2).sum(axis=0) for part in parts)
    alive = np.delete(np.arange(50), [3])  # what stands still in every use has the energy of its means
    np.testing.assert_array_equal(total.squares[0] > 0.0, expected > 0.0)
    assert (total.squares[0, alive] > 0.0).sum() == 48


@pytest.mark.parametrize("columns", [12, 30])
def test_many_rows_become_moments_that_say_the_same(columns):
    parts = [part.centered() for part in uses(columns=columns)]
    total, apart = pooled([parts])[0], [part.moments() for part in parts]
    assert isinstance(total, Moments)
    np.testing.assert_allclose(total.gram, sum(part.gram for part in apart), atol=1e-5)
    np.testing.assert_allclose(total.cross, sum(part.cross for part in apart), atol=1e-5)
    np.testing.assert_allclose(total.energy, sum(part.energy for part in apart), rtol=1e-6)
    assert total.count == 18.0
    assert not total.gram[0, 3].any()
    assert not total.cross[0, 3].any()
    weights = np.random.default_rng(1).standard_normal((1, columns, 2))
    weights[0, 3] = 0.0
    expected = sum(part.error(weights) * part.energy.sum() for part in parts) / total.energy.sum()
    np.testing.assert_allclose(total.error(weights), expected, rtol=1e-4)


def test_mixtures_are_not_pooled():
    parts = uses()
    one = Moments(
        count=6.0,
        gram=np.eye(30)[None],
        cross=np.zeros((1, 30, 2)),
        energy=np.ones((1, 2)),
        sum_input=np.zeros((1, 30)),
        sum_target=np.zeros((1, 2)),
    )
    assert pooled([[parts[0], one]]) is None


def test_both_halves_are_of_one_kind():
    parts = [part.centered() for part in uses(columns=30)]
    few = [replace(part, input=part.input[:2], target=part.target[:2]) for part in parts]
    assert all(isinstance(found, Moments) for found in pooled([few, parts]))
