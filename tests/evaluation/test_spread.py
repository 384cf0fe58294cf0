"""The spread beside a measure: what other samples would say."""

import numpy as np
import pytest

from onnx_subprune.evaluation.measures import Fidelity, OutputFidelity
from onnx_subprune.evaluation.report.table import fidelity_table
from onnx_subprune.evaluation.spread import LEAST, agreement_spread, by_sample, error_spread

LOSSES = {
    "of one size": lambda random, shape: np.ones(shape),
    "chi-square": lambda random, shape: random.chisquare(4, shape),
    "exponential": lambda random, shape: random.exponential(size=shape),
    "with a tail": lambda random, shape: random.lognormal(0.0, 1.0, shape),
}


@pytest.mark.parametrize("count", [16, 64])
@pytest.mark.parametrize("losses", LOSSES)
def test_the_true_error_is_within_two_spreads_of_nine_draws_in_ten(losses, count):
    random = np.random.default_rng(0)
    energy = random.chisquare(8, (400, count))
    lost = LOSSES[losses](random, (400, count)) * energy
    true = np.sqrt(np.mean(LOSSES[losses](random, 1 << 20)))
    spreads = np.array([error_spread(*pair) for pair in zip(lost, energy, strict=True)])
    close = np.abs(np.sqrt(lost.sum(axis=1) / energy.sum(axis=1)) - true) <= 2 * spreads
    assert close.mean() >= 0.9


@pytest.mark.parametrize("count", [16, 64])
@pytest.mark.parametrize("agreement", [0.6, 0.9, 0.99])
def test_the_true_agreement_is_within_two_spreads_of_nine_draws_in_ten(agreement, count):
    equal = (np.random.default_rng(0).random((400, count)) < agreement).astype(np.float64)
    spreads = np.array([agreement_spread(row, count) for row in equal])
    assert np.mean(np.abs(equal.mean(axis=1) - agreement) <= 2 * spreads) >= 0.9


def test_of_many_choices_a_sample_those_between_samples_count():
    random = np.random.default_rng(0)
    easy = random.beta(18, 2, (400, 16))  # by sample how likely a choice is to agree
    equal = random.binomial(500, easy) / 500
    spreads = np.array([agreement_spread(row, 16 * 500) for row in equal])
    assert np.mean(np.abs(equal.mean(axis=1) - 0.9) <= 2 * spreads) >= 0.9
    assert spreads.mean() < 0.03


def test_spreads_scale_with_the_error_and_fall_with_the_samples():
    lost, energy = np.random.default_rng(0).exponential(size=(2, 256))
    one = error_spread(lost, energy)
    assert error_spread(9 * lost, energy) == pytest.approx(3 * one)
    assert error_spread(lost[:16], energy[:16]) > 2 * one
    assert error_spread(0 * lost, energy) == 0.0


@pytest.mark.parametrize(
    ("lost", "energy"), [(np.ones(LEAST - 1),) * 2, (np.ones(8), np.eye(8)[0]), (np.full(8, np.inf), np.ones(8))]
)
def test_where_samples_do_not_tell_there_is_no_spread(lost, energy):
    assert error_spread(lost, energy) is None
    assert agreement_spread(np.ones(LEAST - 1), 3) is None


def test_samples_are_found_on_whichever_axis_they_are():
    value = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    assert np.array_equal(by_sample(value, 4), value.reshape(4, -1))
    assert np.array_equal(by_sample(value, 5)[2], value[:, 2].ravel())
    assert np.array_equal(by_sample(value.reshape(20, 6), 4), value.reshape(4, -1))
    assert by_sample(value, 7).shape == (1, value.size)
    assert by_sample(np.float32(1), 1).shape == (1, 1)


def test_tables_have_the_spread_of_held_out_samples_alone():
    item = OutputFidelity(
        relative_error=0.24, cosine=0.97, agreement=1.0, relative_error_spread=0.05, agreement_spread=0.067
    )
    found = Fidelity(samples=16, outputs={"y": item})
    assert fidelity_table(found.on(held_out=True))[0].rows == (
        ("y", "0.2400 +- 0.0500", "0.9700", "", "100.0 +- 6.7 %"),
    )
    assert fidelity_table(found.on(held_out=False))[0].rows == (("y", "0.2400", "0.9700", "", "100.0 %"),)
