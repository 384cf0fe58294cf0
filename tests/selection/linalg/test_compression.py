"""Channels of long filters are chosen by a few of their directions."""

import numpy as np
import pytest

from onnx_subprune.selection import Forward, Problem
from onnx_subprune.selection.linalg import compression

WIDTH, BLOCK, KEPT = 20, 18, 6


@pytest.fixture
def problem(monkeypatch):
    monkeypatch.setattr(compression, "WIDE", 100)
    monkeypatch.setattr(compression, "COLUMNS", WIDTH * KEPT)
    rng = np.random.default_rng(5)
    signals = np.cumsum(rng.standard_normal((900, WIDTH // 2, BLOCK)), axis=2)
    mixed = np.maximum(np.einsum("ncb,cd->ndb", signals, rng.standard_normal((WIDTH // 2, WIDTH))), 0.0)
    rows = (mixed + 0.5 * rng.standard_normal(mixed.shape)).reshape(900, -1)
    rows[:, :BLOCK] = 0.0  # a dead channel
    prior = rng.standard_normal((WIDTH * BLOCK, 5)) * np.repeat(np.exp(rng.standard_normal(WIDTH)), BLOCK)[:, None]
    target = rows @ prior
    columns = np.arange(WIDTH * BLOCK).reshape(WIDTH, BLOCK)
    energy = float(np.sum(target**2))
    return Problem(gram=rows.T @ rows, cross=rows.T @ target, energy=energy, columns=columns, prior=prior)


@pytest.mark.parametrize("size", [4, 8, 14])
def test_what_is_chosen_explains_as_much_and_the_error_is_an_upper_bound(problem, size):
    cells = np.zeros(WIDTH, np.int64)
    whole, brief = (Forward(brief=some).path([problem], [size], cells)[0] for some in (False, True))
    error = problem.error(brief.support)
    assert error <= 1.02 * problem.error(whole.support)
    assert error <= brief.error * (1 + 1e-9)
    assert 0 not in brief.support
    assert brief.error != whole.error


def test_in_all_directions_nothing_is_left_out(problem, monkeypatch):
    monkeypatch.setattr(compression, "COLUMNS", WIDTH * BLOCK)
    sizes, cells = [3, 10], np.zeros(WIDTH, np.int64)
    whole, brief = (Forward(brief=some).path([problem], sizes, cells) for some in (False, True))
    for one, other in zip(whole, brief, strict=True):
        assert one.support == other.support
        assert one.error == pytest.approx(other.error, rel=1e-4)


def test_rounding_that_leaves_a_gram_indefinite_is_no_obstacle():
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.standard_normal((50, 4)), 16, axis=1).astype(np.float32)
    gram = (rows.T @ rows).astype(np.float64)
    gram -= 1e-4 * np.eye(len(gram))
    cross = gram @ rng.standard_normal((64, 3))
    smaller, turned, kept = compression.compressed(gram, cross, cross, 16)
    assert kept == 16
    assert np.isfinite(smaller).all()
    assert np.isfinite(turned).all()
