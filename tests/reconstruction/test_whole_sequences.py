"""Weights of recurrent layers follow the gradient of what their states are wrong by over whole sequences."""

import numpy as np
import pytest

from onnx_subprune import Channels, Refit, Resources, prune
from onnx_subprune.evaluation.gates import Gates
from onnx_subprune.graph.gradients.sequences import BIAS, RECURRENCE, WEIGHT
from onnx_subprune.reconstruction.coordinates import Coordinates
from onnx_subprune.reconstruction.whole_sequences import Ends
from onnx_subprune.runtime.session import Session
from tests.networks.recurrent import Recurrent, saturated

SETTINGS = {
    "budget": Channels(0.5),
    "round_to": 1,
    "resources": Resources(threads=1, holdout=0),
    "gates": Gates(accept_any=True),
}
CASES = [
    (Recurrent("LSTM", "bidirectional", units=12, features=6, steps=10), 1.0),
    (Recurrent("LSTM", units=12, features=6, steps=10, bias=False), 0.9),
    (Recurrent("GRU", reset=1, units=12, features=6, steps=10, states="filled"), 1.04),
    (Recurrent("GRU", "reverse", units=12, features=6, steps=10), 1.0),
    (Recurrent("RNN", units=12, features=6, steps=10, joined="Concat"), 0.85),
]
"""With what they lose at most in units of what they lose without."""


def sequences(count, seed, steps=10):
    """Slow waves with noise, as sounds are."""
    rng = np.random.default_rng(seed)
    phase, pace = rng.uniform(0, 6, (2, count, 1, 3))
    waves = np.sin(phase + 0.2 * pace * np.arange(steps)[None, :, None])
    return (waves + 0.1 * rng.standard_normal(waves.shape)).astype(np.float32)


def errors(model, settings, refits, x=None, other=None):
    """What pruned models lose on sequences that nothing was fitted to."""
    x, other = sequences(256, 1) if x is None else x, sequences(200, 2) if other is None else other
    (wanted,) = Session(model).run({"x": other}).values()
    found = []
    for refit in refits:
        (outputs,) = Session(prune(model, {"x": x}, **settings, refit=refit).model).run({"x": other}).values()
        found.append(float(np.mean((outputs - wanted) ** 2)))
    return found


@pytest.mark.parametrize(("case", "limit"), CASES, ids=[f"{case.op} {case.direction}" for case, _ in CASES])
def test_states_are_closer_to_the_originals_on_sequences_that_no_step_has_seen(case, limit):
    lost = np.array([errors(saturated(case, seed), SETTINGS, [Refit(), Refit(through_time=0)]) for seed in range(3)])
    assert lost[:, 0].sum() < limit * lost[:, 1].sum()


@pytest.mark.parametrize(
    "case",
    [Recurrent("LSTM", units=12, peepholes=True), Recurrent("GRU", units=12, extra={"clip": 3.0})],
    ids=["peepholes", "clip"],
)
def test_layers_without_formulas_stay_as_least_squares_have_them(case):
    model, x = case.model(), sequences(96, 1, steps=4)
    found = [prune(model, {"x": x}, **SETTINGS, refit=refit).model for refit in (Refit(), Refit(through_time=0))]
    assert found[0].SerializeToString() == found[1].SerializeToString()


def test_noise_that_the_steps_fit_is_not_followed_far():
    """Of four times as many numbers as samples have states nothing is learned that the other half does not bear out."""
    case = Recurrent("LSTM", units=32, features=16, steps=4)
    rng = np.random.default_rng(0)
    x, other = (rng.standard_normal((count, 4, 3)).astype(np.float32) for count in (32, 200))
    with_steps, without = errors(saturated(case), SETTINGS, [Refit(), Refit(through_time=0)], x, other)
    assert with_steps < 1.05 * without


def test_what_is_left_of_a_layer_goes_back_to_its_place():
    rng = np.random.default_rng(0)
    whole = {WEIGHT: rng.random((2, 8, 5)), RECURRENCE: rng.random((2, 8, 4)), BIAS: rng.random((2, 16))}
    units, features = np.array([1, 3]), np.array([0, 2, 4])
    ends = Ends(units=units, features=features, rows=np.array([1, 3, 5, 7]))
    part = ends.of(whole)
    assert [part[name].shape for name in (WEIGHT, RECURRENCE, BIAS)] == [(2, 4, 3), (2, 4, 2), (2, 8)]
    np.testing.assert_array_equal(part[BIAS][0], whole[BIAS][0, [1, 3, 5, 7, 9, 11, 13, 15]])
    same = ends.into(whole, part)
    for name, value in whole.items():
        np.testing.assert_array_equal(same[name], value)
    moved = ends.into(whole, {name: value + 1.0 for name, value in part.items()})
    assert moved[RECURRENCE][1, 5, 3] == whole[RECURRENCE][1, 5, 3] + 1.0
    assert moved[RECURRENCE][1, 4, 3] == whole[RECURRENCE][1, 4, 3]
    assert moved[WEIGHT][0, 7, 1] == whole[WEIGHT][0, 7, 1]


class Seen:
    """Moments of rows, (d, n, p)."""

    def __init__(self, rows):
        self.rows, self.count, self.columns = rows, rows.shape[1], rows.shape[2]
        self.gram, self.squares = np.einsum("dni,dnj->dij", rows, rows), np.sum(rows**2, axis=1)

    def sum_output(self, weights):
        return np.einsum("dnp,dpm->dm", self.rows, weights)


def test_in_these_coordinates_what_is_read_is_uncorrelated_and_slopes_are_those_of_steps():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((1, 5000, 5)) @ rng.standard_normal((5, 5)) + 2.0
    columns = np.array([3, 4]), np.array([0, 2])
    places = Coordinates.of(Seen(rows), columns, 4, biased=True)
    ones = np.concatenate([rows[0][:, columns[0]], np.ones((5000, 1))], axis=1)
    second = (ones @ places.white[0][0]).T @ (ones @ places.white[0][0]) / 5000
    assert np.abs(second - np.eye(3)).max() < 0.2
    assert np.abs(ones.T @ ones / 5000 - np.eye(3)).max() > 2.0
    start = {WEIGHT: rng.random((1, 4, 2)), RECURRENCE: rng.random((1, 4, 2)), BIAS: rng.random((1, 8))}
    slopes = {name: rng.standard_normal(value.shape) for name, value in start.items()}
    step = rng.standard_normal(places.start.size)
    moved = places.moved(start, step)
    by_constants = sum(float(np.sum(slopes[name] * (moved[name] - start[name]))) for name in start)
    assert by_constants == pytest.approx(float(places.slope(slopes) @ step))
    for name, value in places.moved(start, places.start).items():
        np.testing.assert_array_equal(value, start[name])
