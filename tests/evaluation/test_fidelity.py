"""Measures of fidelity, what they call ruined or poor, and the user's gates."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from onnx_subprune import Gates, OptionError
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.evaluation.divergence import displacement
from onnx_subprune.evaluation.fidelity import _Floats, fidelity
from onnx_subprune.evaluation.gates import complaints, missed, ruined
from onnx_subprune.evaluation.measures import Fidelity, OutputFidelity
from onnx_subprune.runtime.session import Runnable

RNG = np.random.default_rng(0)
SCORES = RNG.standard_normal((64, 10)).astype(np.float32)


def giving(expression, shape="N, 10", out="float"):
    """A model from x to y as an expression says."""
    dims = {"float": shape, "int64": "M" if "ArgMax" in expression else "R, M"}[out]
    return Runnable(
        onnx.parser.parse_model(
            f'<ir_version: 8, opset_import: ["": 17]> g (float[{shape}] x) => ({out}[{dims}] y) {{ {expression} }}'
        )
    )


def measured(values, expression, shape="N, 10", chunk=16, out="float"):
    same = "y = Identity(x)" if out == "float" else "y = ArgMax<axis = 1, keepdims = 0>(x)"
    data = Calibration(arrays={"x": values}, chunk=chunk)
    return fidelity(giving(same, shape, out=out), giving(expression, shape, out=out), data)


ZEROS = "c = Constant<value_float = 0.0>() y = Mul(x, c)"
HALVED = "c = Constant<value_float = 0.5>() y = Mul(x, c)"
MOVED = "c = Constant<value_float = 7.0>() y = Add(x, c)"
NEGATED = "y = Neg(x)"
TWO_MORE = "c = Constant<value_float = 2.0>() y = Add(x, c)"
AGAINST = "c = Constant<value_float = 100.0>() y = Sub(c, x)"
FIFTY = "c = Constant<value_float = 50.0>() d = Constant<value_float = 0.0>() z = Mul(x, d) y = Add(c, z)"


def test_measures_are_what_they_say():
    wanted = SCORES.astype(np.float64) * 0.5
    item = measured(SCORES, HALVED).outputs["y"]
    spread = SCORES - SCORES.mean(axis=0)
    assert item.relative_error == pytest.approx(0.5, rel=1e-6)
    assert item.standardized_error == pytest.approx(np.linalg.norm(wanted) / np.linalg.norm(spread))
    assert item.cosine == item.agreement == pytest.approx(1.0)
    assert item.correlation == pytest.approx(1.0)
    counts = np.bincount(SCORES.argmax(axis=1), minlength=10) / 64
    assert item.chance == pytest.approx(float(np.sum(counts**2)))
    moved = measured(SCORES, MOVED).outputs["y"]
    assert moved.correlation == pytest.approx(1.0, abs=1e-4)
    assert moved.agreement == 1.0
    assert moved.relative_error > 6


def test_measures_do_not_depend_on_chunks_or_on_a_large_offset():
    offset = SCORES + np.float32(1000)
    one, many = (measured(offset, HALVED, chunk=chunk).outputs["y"] for chunk in (64, 5))
    for name in (
        "relative_error",
        "standardized_error",
        "correlation",
        "agreement",
        "chance",
        "relative_error_spread",
        "agreement_spread",
    ):
        assert getattr(one, name) == pytest.approx(getattr(many, name), rel=1e-6)
    assert one.standardized_error == pytest.approx(500.0, rel=0.1)


@pytest.mark.parametrize(
    ("values", "expression", "shape", "bad"),
    [
        (SCORES, HALVED, "N, 10", False),
        (SCORES, MOVED, "N, 10", False),  # scores that all moved alike are still scores
        (SCORES, ZEROS, "N, 10", True),
        (SCORES, NEGATED, "N, 10", True),
        (SCORES, "c = Constant<value_float = 0.0>() y = Div(x, c)", "N, 10", True),
        (SCORES[:, :1], MOVED, "N, 1", True),
        (SCORES[:, :1] + 50, ZEROS, "N, 1", True),
        (SCORES[:, :1] + 50, FIFTY, "N, 1", True),
        (SCORES[:, :1] + 50, TWO_MORE, "N, 1", False),  # it still rises and falls with the original
        (SCORES[:, :1] + 50, AGAINST, "N, 1", True),
        (SCORES[:, :1] + 50, "c = Constant<value_float = 3.0>() y = Mul(x, c)", "N, 1", True),
        (SCORES.reshape(16, 4, 10), ZEROS, "N, 4, 10", True),
        (SCORES.reshape(16, 4, 10), HALVED, "N, 4, 10", False),
        (np.ones((16, 10), np.float32), "c = Constant<value_float = 1.0001>() y = Mul(x, c)", "N, 10", False),
        (np.ones((16, 10), np.float32), NEGATED, "N, 10", True),
        (SCORES[:2], HALVED, "N, 10", False),
        (SCORES[:2], ZEROS, "N, 10", True),
    ],
)
def test_what_is_no_better_than_a_constant_is_ruined(values, expression, shape, bad):
    with np.errstate(all="ignore"):
        assert (ruined(measured(values, expression, shape)) is not None) == bad


def test_what_is_farther_than_a_constant_but_goes_along_is_warned_of():
    found = measured(SCORES[:, :1] + 50, TWO_MORE, "N, 1")
    assert found.outputs["y"].relative_error < 0.05
    assert "as far from the original's as the best constant" in next(complaints(found, Gates()))
    assert not list(complaints(found, Gates(max_error=0.05)))


def test_integers_are_judged_by_agreement():
    same = measured(SCORES, "y = ArgMax<axis = 1, keepdims = 0>(x)", out="int64")
    other = measured(SCORES, "z = Neg(x) y = ArgMax<axis = 1, keepdims = 0>(z)", out="int64")
    assert same.outputs["y"].agreement == 1.0
    assert same.outputs["y"].relative_error is None
    assert 0 < same.outputs["y"].agreement_spread < other.outputs["y"].agreement_spread + 0.05
    assert ruined(same) is None
    assert "by chance" in ruined(other)


def test_few_samples_do_not_tell_choices_by_chance_from_poor_ones_where_scores_go_along():
    item = OutputFidelity(
        relative_error=0.6,
        cosine=0.8,
        agreement=0.4,
        chance=0.37,
        standardized_error=1.9,
        correlation=0.56,
        agreement_spread=0.09,
    )
    few, many, apart = (
        replace(measured(SCORES, HALVED, "N, 10"), outputs={"y": found})
        for found in (item, replace(item, agreement_spread=0.01), replace(item, correlation=0.2))
    )
    assert ruined(few) is None
    assert list(complaints(few, Gates()))
    assert "by chance" in ruined(many)
    assert "by chance" in ruined(apart)


def test_probabilities_of_their_own_are_decisions_at_a_half():
    maps = RNG.uniform(0.0, 1.0, (8, 1, 5, 5))
    found = _Floats()
    found.add(maps, 1.0 - maps, 8)
    assert found.result().agreement == 0.0
    turned = _Floats()
    turned.add(np.full_like(maps, 0.9), np.full_like(maps, 0.1), 8)
    assert (turned.result().agreement, turned.result().chance) == (0.0, 0.0)
    above = _Floats()
    above.add(np.where(maps > 0.9, 1.0 + 1e-7, maps), maps, 8)
    assert above.result().agreement == 1.0  # as onnxruntime's Sigmoid rounds
    sure = _Floats()
    sure.add(0.4 * maps, 0.4 * maps[::-1], 8)
    assert sure.result().agreement is None  # nothing is above a half
    rare = _Floats()
    rare.add(np.where(maps > 0.98, 0.9, 0.1), np.full_like(maps, 0.1), 8)
    item = rare.result()
    assert item.agreement == pytest.approx(item.chance)
    assert list(
        complaints(Fidelity(samples=8, outputs={"y": replace(item, agreement_spread=0.0)}), Gates(max_error=9.0))
    )
    other = _Floats()
    other.add(maps, maps, 8)
    other.add(3 * maps, 3 * maps, 8)
    assert other.result().agreement is None


def test_numbers_of_which_none_is_in_front_are_no_scores():
    """An embedding of 300 numbers was warned of, as the largest of them is another one for a seventh of the samples."""
    values = RNG.standard_normal((64, 300))
    found = _Floats()
    found.add(values, values + 0.2 * RNG.standard_normal(values.shape), 64)
    assert found.result().agreement is None
    scores = _Floats()
    scores.add(values + 6.0 * np.eye(300)[RNG.integers(0, 300, 64)], values, 64)
    assert scores.result().agreement is not None


def test_labels_of_which_several_or_none_may_be_true_are_decisions_of_their_own():
    """The largest of 896 anchors says nothing of which of them are faces."""
    scores = RNG.uniform(0.0, 1.0, (8, 40))
    found = _Floats()
    found.add(scores, np.clip(scores + 0.2 * RNG.uniform(-1.0, 1.0, scores.shape) * (scores < 0.2), 0.0, 1.0), 8)
    assert found.result().agreement == 1.0
    classes = _Floats()
    shares = scores / scores.sum(axis=1, keepdims=True)
    classes.add(shares, shares[:, ::-1], 8)
    assert classes.result().agreement == 0.0


def test_signs_of_single_numbers_are_decisions_but_those_of_a_waveform_are_not():
    """A detector whose scores come in front of the sigmoid lost every face, and nothing was said: the scores are far from zero all along."""
    scores = np.where(RNG.uniform(size=(8, 400, 1)) < 0.01, 0.9, -6.0 + RNG.standard_normal((8, 400, 1)))
    found = _Floats()
    found.add(scores, np.minimum(scores, -3.0), 8)
    item = found.result()
    assert item.signs
    assert item.beyond_chance == pytest.approx(0.0)
    assert item.relative_error < 0.2
    assert list(complaints(Fidelity(samples=8, outputs={"y": replace(item, agreement_spread=0.0)}), Gates()))
    assert item.recalled == 0.0
    assert "0.0% of the rarer choices" in ruined(Fidelity(samples=8, outputs={"y": item}))
    assert ruined(Fidelity(samples=8, outputs={"y": replace(item, recalled=0.4)})) is None
    assert item.agreement_words.startswith("9")
    assert " % of signs (" in item.agreement_words
    wave = _Floats()
    wave.add(RNG.standard_normal((8, 1, 300)), RNG.standard_normal((8, 1, 300)), 8)
    assert wave.result().agreement is None
    logit = _Floats()
    logit.add(np.linspace(-1, 1, 8)[:, None], np.linspace(-1, 1, 8)[:, None] + 0.2, 8)
    assert (logit.result().agreement, logit.result().signs) == (0.875, True)


def test_what_is_nearly_always_chosen_is_told_beside_the_agreement():
    item = of(agreement=0.961, chance=0.958).outputs["y"]
    assert item.agreement_words == "96.1 % (95.8 % by chance)"
    assert item.beyond_chance == pytest.approx(0.003 / 0.042)
    assert replace(item, chance=0.2).agreement_words == "96.1 %"
    assert replace(item, chance=1.0).beyond_chance is None


def test_outputs_of_other_sizes_are_not_compared_and_that_is_said():
    expressions = [f"{scaled} y = NonZero(r)" for scaled in ("r = Relu(x)", "z = Neg(x) r = Relu(z)")]
    values = np.abs(SCORES) + 1
    data = Calibration(arrays={"x": values}, chunk=16)
    found = fidelity(*(giving(text, out="int64") for text in expressions), data)
    assert found.outputs["y"].agreement is None
    assert ruined(found) is None
    assert "not known" in next(complaints(found, Gates()))


def of(**measures):
    filled = {"relative_error": 0.01, "cosine": 1.0, "agreement": None, **measures}
    return Fidelity(samples=32, outputs={"y": OutputFidelity(**filled)}, held_out=True)


@pytest.mark.parametrize(
    ("measures", "gates", "told", "missing"),
    [
        ({}, Gates(), 0, False),
        ({"relative_error": 0.31}, Gates(), 1, False),
        ({"relative_error": 0.13, "standardized_error": 0.62}, Gates(), 1, False),  # far from zero all along
        ({"relative_error": 0.13, "standardized_error": 0.62, "agreement": 0.95, "chance": 0.1}, Gates(), 0, False),
        ({"relative_error": 0.31}, Gates(max_error=0.4), 0, False),
        ({"relative_error": 0.31}, Gates(max_error=0.3), 0, True),
        ({"agreement": 0.89}, Gates(), 1, False),
        ({"agreement": 0.85, "standardized_error": 0.1}, Gates(), 0, False),  # coordinates, which are no scores
        ({"agreement": 0.96, "chance": 0.96}, Gates(), 1, False),  # a rare class that is missed
        ({"agreement": 0.96, "chance": 0.96, "agreement_spread": 0.04}, Gates(), 0, False),
        ({"agreement": 0.998, "chance": 0.96}, Gates(), 0, False),
        ({"agreement": 0.89}, Gates(min_agreement=0.8), 0, False),
        ({"agreement": 0.89}, Gates(min_agreement=0.9), 0, True),
        ({"agreement": 0.91}, Gates(), 0, False),
        ({}, Gates(min_agreement=0.9), 0, True),  # there is no agreement that it could bound
    ],
)
def test_poor_results_are_warned_of_and_gates_take_the_place_of_warnings(measures, gates, told, missing):
    found = of(**measures)
    assert (missed(found, gates) is not None) == missing
    assert len(list(complaints(found, gates))) == told


@pytest.mark.parametrize(
    "bounds", [{"min_agreement": 1.1}, {"min_agreement": -0.1}, {"max_error": -1.0}, {"max_error": float("nan")}]
)
def test_bounds_that_make_no_sense_are_refused(bounds):
    with pytest.raises(OptionError):
        Gates(**bounds)


def test_the_largest_number_of_an_embedding_is_no_choice():
    units = SCORES / np.linalg.norm(SCORES, axis=1, keepdims=True)
    certain = np.eye(10, dtype=np.float32)[SCORES.argmax(axis=1)]
    once = np.concatenate([units[:1], SCORES[1:]])  # a row of length 1 may come by chance
    for values, expected in ((units, None), (np.abs(units), None), (SCORES, 1.0), (certain, 1.0), (once, 1.0)):
        for chunk in (1, 16):
            found = measured(values, "y = Identity(x)", chunk=chunk).outputs["y"]
            assert (found.agreement, found.chance is None) == (expected, expected is None)


@pytest.mark.parametrize(("axis", "shape"), [(2, "N, 3, 10"), (1, "N, 10, 3")])
def test_classes_of_positions_are_counted_where_there_are_probabilities(axis, shape):
    """Tags of words, characters of a line, classes of pixels: a share of all positions, and a spread over the samples."""
    scores = np.moveaxis(np.random.default_rng(3).normal(size=(64, 3, 10)).astype(np.float32), 2, axis)
    made = np.exp(scores) / np.exp(scores).sum(axis=axis, keepdims=True)
    noise = np.roll(scores, 1, axis=0)
    other = np.exp(scores + noise) / np.exp(scores + noise).sum(axis=axis, keepdims=True)
    found = measured(scores, f"y = Softmax<axis = {axis}>(x)", shape).outputs["y"]
    assert found.agreement is None  # scores of three axes may be anything
    judge = _Floats()
    for start in (0, 32):
        judge.add(made[start : start + 32], other[start : start + 32], 32)
    item = judge.result()
    same = (made.argmax(axis=axis) == other.argmax(axis=axis)).mean()
    assert item.agreement == pytest.approx(same)
    assert 0.05 < item.chance < 0.2
    assert 0.0 < item.agreement_spread < 0.2


def test_classes_of_runs_without_an_axis_of_samples_are_counted():
    judge = _Floats()
    for right in (0, 1, 2, 0):
        made = np.full(3, 0.1)
        made[right] = 0.8
        judge.add(made, np.roll(made, int(right == 2)), 1)
    assert judge.result().agreement == 0.75
    embedding = _Floats()
    embedding.add(np.full(3, 0.3), np.full(3, 0.3), 1)
    assert embedding.result().agreement is None


def test_what_the_original_has_no_number_for_is_not_compared():
    """As where an input masks a place; an error of NaN had been printed as none at all."""
    original, halved = giving("y = Sqrt(x)"), giving("c = Constant<value_float = 0.5>() z = Sqrt(x) y = Mul(z, c)")
    found = fidelity(original, halved, Calibration(arrays={"x": SCORES}, chunk=16)).outputs["y"]
    assert found.relative_error == pytest.approx(0.5, rel=1e-6)
    assert found.cosine == pytest.approx(1.0)
    chunks = [{"y": np.sqrt(np.where(SCORES > 0, SCORES, np.nan))}]
    assert displacement(chunks, [{"y": chunks[0]["y"] * 0.5}]) == pytest.approx(0.25, rel=0.5)
    lost = fidelity(giving("y = Identity(x)"), original, Calibration(arrays={"x": SCORES}, chunk=16)).outputs["y"]
    assert lost.relative_error == np.inf


def tagged(generator, classes, positions=20, lead=4.0):
    """Scores of a class at each position, one of them far in front."""
    scores = generator.standard_normal((64, positions, classes)).astype(np.float32)
    np.put_along_axis(scores, generator.integers(classes, size=(64, positions, 1)), lead, axis=2)
    return scores


@pytest.mark.parametrize(("shape", "told"), [("N, L, 40", True), ("N, 20, 40", False)])
def test_classes_behind_positions_of_any_number_have_an_agreement(shape, told):
    """As taggers and readers of letters put them out; of a map with fixed sizes nothing tells which axis they would be on."""
    item = measured(tagged(RNG, 40), HALVED, shape=shape).outputs["y"]
    assert (item.agreement == 1.0) is told
    assert (
        measured(RNG.standard_normal((64, 20, 40)).astype(np.float32), HALVED, shape=shape).outputs["y"].agreement
        is None
    )


def test_coordinates_on_a_picture_are_no_labels():
    points = (0.2 + 0.6 * RNG.random((64, 34))).astype(np.float32)
    moved = "c = Constant<value_float = 0.02>() y = Add(x, c)"
    assert measured(points, moved, shape="N, 34").outputs["y"].agreement is None
    labels = (RNG.random((64, 34)) < 0.2).astype(np.float32) * 0.9 + 0.05
    assert measured(labels.astype(np.float32), moved, shape="N, 34").outputs["y"].agreement == 1.0


def test_an_axis_of_another_length_in_each_run_is_none_of_classes():
    """As of the waveforms that text-to-speech puts out."""
    found = _Floats(ragged=True)
    for length in (40, 50):
        scores = RNG.standard_normal((1, length)) + 6.0 * np.eye(length)[:1]
        found.add(scores, scores, 1)
    assert found.result().agreement is None
