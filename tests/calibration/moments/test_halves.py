"""What two halves of the samples do not share is noise: of that much the gram of all samples is relieved."""

import numpy as np
import pytest

from onnx_subprune.calibration.moments.halves import Halves, shrinkage_of
from onnx_subprune.calibration.moments.moments import Moments
from onnx_subprune.calibration.moments.rows import Rows
from onnx_subprune.selection import Forward, Wanda

RNG = np.random.default_rng(5)
FREE = np.zeros(40, np.int64)


def moments_of(x: np.ndarray, weights: np.ndarray) -> Moments:
    target = x @ weights
    return Moments(
        count=float(len(x)),
        gram=(x.T @ x)[None],
        cross=(x.T @ target)[None],
        energy=(target**2).sum(axis=0)[None],
        sum_input=x.sum(axis=0)[None],
        sum_target=target.sum(axis=0)[None],
    )


def drawn(samples: int, mixed: np.ndarray) -> list[np.ndarray]:
    return [RNG.standard_normal((samples, len(mixed))) @ mixed for _ in range(2)]


WEIGHTS = RNG.standard_normal((40, 6))
MIXED = RNG.standard_normal((8, 40)) + 0.1


def test_of_independent_columns_all_is_noise_and_of_equal_halves_nothing():
    first, second = (moments_of(part, WEIGHTS) for part in drawn(20, np.eye(40)))
    assert shrinkage_of([first, second]) > 0.8
    assert shrinkage_of([first, first]) == pytest.approx(0.0, abs=1e-12)


def test_the_more_samples_the_less_is_noise():
    found = [
        Halves.of([moments_of(part, WEIGHTS) for part in drawn(samples, MIXED)]).shrinkage for samples in (4, 32, 2048)
    ]
    assert found[0] > found[1] > found[2]
    assert found[2] < 0.01


def test_the_shrunk_gram_is_nearer_to_that_of_all_the_world():
    world = MIXED.T @ MIXED
    for samples in (6, 12, 24):
        halves = Halves.of([moments_of(part, WEIGHTS) for part in drawn(samples, MIXED + 0.0)])
        problem, plain = (
            halves.whole.problem(np.arange(40)[:, None], WEIGHTS[None], np.arange(40), shrinkage).gram / (2 * samples)
            for shrinkage in (halves.shrinkage, 0.0)
        )
        scale = 1 / np.sqrt(np.diag(world))
        away = [np.sum(((gram - world) * scale * scale[:, None] * (1 - np.eye(40))) ** 2) for gram in (problem, plain)]
        assert away[0] < away[1]


def test_rows_and_moments_share_as_much():
    parts = drawn(9, MIXED)
    rows = [Rows(input=part.astype(np.float32), target=part @ WEIGHTS).centered() for part in parts]
    sums = [moments_of(part.astype(np.float32).astype(np.float64), WEIGHTS).centered() for part in parts]
    assert rows[0].overlap(rows[1]) == pytest.approx(sums[0].overlap(sums[1]), rel=1e-6)


def test_where_all_is_noise_the_energies_of_weights_and_columns_decide():
    x = drawn(20, np.diag(np.linspace(0.5, 2.0, 40)))[0]
    single = RNG.standard_normal((40, 1))
    problem = moments_of(x, single).problem(np.arange(40)[:, None], single[None], np.arange(40), 1.0)
    ours, theirs = (selector.path([problem], [7, 20], FREE) for selector in (Forward(), Wanda()))
    assert [choice.support for choice in ours] == [choice.support for choice in theirs]
