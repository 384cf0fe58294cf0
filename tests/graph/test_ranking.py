"""Detectors without a non-maximum suppression: the rows of their output stand in the order of scores, and are judged by what they are chosen from."""

import numpy as np
import pytest

from onnx_subprune import Macs, Resources, compare, prune
from onnx_subprune.evaluation.gates import Gates
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.runtime.session import Session
from tests.networks.net import Net

IMAGES = np.random.default_rng(0).standard_normal((48, 3, 12, 12)).astype(np.float32)
ROWS = 20


def detector(steep: float = 1.0, layer_behind: bool = False):
    """The best rows of 144 boxes by the largest of two scores; steep: many scores are 1 but for their last digits then."""
    n = Net(17, seed=2)
    x = n.relu(n.conv(n.relu(n.conv(n.input(["n", 3, 12, 12]), 32, 3)), 32, 3))
    boxes, scores = (n("Transpose", n.reshape(n.conv(x, width, 1), 0, width, 144), perm=[0, 2, 1]) for width in (4, 2))
    scores = n("Sigmoid", n("Mul", scores, n.constant(np.float32(steep))))
    best = n("ReduceMax", scores, axes=[2], keepdims=0)
    values, places = n.add("TopK", best, n.constant(np.array([ROWS])), outputs=2, axis=1)
    rows = n("Tile", n.unsqueeze(places, 2), n.constant(np.array([1, 1, 4])))
    taken = n("GatherElements", boxes, rows, axis=1)
    if layer_behind:
        taken = n("MatMul", taken, n.weight(4, 4))
    n.output(n.concat(taken, n.unsqueeze(values, 2), axis=2), 3)
    return n.model()


def test_an_output_in_the_order_of_scores_is_judged_by_what_is_in_front():
    seen = trace(Network(detector())).observation
    (fronts,) = seen.ranked.values()
    assert set(fronts) == set(seen.judged)
    assert (
        len(fronts) == 3
    )  # the largest scores, the boxes, and the scores in their order, which moves none of them far
    assert not set(seen.judged) & set(Network(detector()).outputs)


@pytest.mark.parametrize("values_alone", [True, False])
def test_layers_behind_the_order_and_values_without_places_are_judged_as_they_are(values_alone):
    if values_alone:
        n = Net(17, seed=2)
        x = n("Flatten", n.relu(n.conv(n.input(["n", 3, 12, 12]), 8, 3)))
        n.output(n.add("TopK", x, n.constant(np.array([5])), outputs=2, axis=1)[0], 2)
        model = n.model()
    else:
        model = detector(layer_behind=True)
    seen = trace(Network(model)).observation
    assert not seen.ranked
    assert set(seen.judged) == set(Network(model).outputs)


def suppressed():
    """The boxes that a non-maximum suppression leaves of 144, and their places: as many as there are, in a run of one image."""
    n = Net(17, seed=2)
    x = n.relu(n.conv(n.relu(n.conv(n.input([1, 3, 12, 12]), 32, 3)), 32, 3))
    boxes = n("Transpose", n.reshape(n.conv(x, 4, 1), 0, 4, 144), perm=[0, 2, 1])
    scores = n("Sigmoid", n.reshape(n.conv(x, 2, 1), 0, 2, 144))
    limits = (n.constant(np.array([20])), *(n.constant(np.array([limit], np.float32)) for limit in (0.5, 0.3)))
    places = n("NonMaxSuppression", boxes, scores, *limits)
    n.output(n("Gather", n.squeeze(boxes, 0), n.squeeze(n.slice(places, 2, 3, 1), 1), axis=0), 2)
    n.output(places, 2, kind=7)
    return n.model()


def test_boxes_that_a_suppression_leaves_are_judged_by_all_boxes_and_scores():
    """How many it leaves depends on thresholds, so that the outputs of two models have other shapes: nothing was known of them."""
    model = suppressed()
    seen = trace(Network(model)).observation
    assert {*seen.ranked} == {*Network(model).outputs}
    runs = [{"x": image[None]} for image in IMAGES]
    result = prune(
        model, runs, budget=Macs(0.6), resources=Resources(threads=1, trials=0), gates=Gates(accept_any=True)
    )
    assert {*result.report.fidelity.outputs} == {*seen.judged}
    assert all(0.0 < item.relative_error < 1.0 for item in result.report.fidelity.outputs.values())
    assert not any("another shape" in warning for warning in result.report.warnings)


def test_inputs_that_rows_are_taken_of_are_not_judged():
    """Pixels of an image at the best scores: the image is the same for both models."""
    n = Net(17, seed=2)
    x = n.input(["n", 3, 12, 12])
    scores = n.squeeze(n.reshape(n.conv(n.relu(n.conv(x, 8, 3)), 1, 1), 0, 1, 144), 1)
    places = n.add("TopK", scores, n.constant(np.array([4])), outputs=2, axis=1)[1]
    rows = n("Tile", n.unsqueeze(places, 1), n.constant(np.array([1, 3, 1])))
    n.output(n("GatherElements", n.reshape(x, 0, 3, 144), rows, axis=2), 3)
    seen = trace(Network(n.model())).observation
    assert not {"x"} & set(seen.judged)
    result = prune(
        n.model(), IMAGES, budget=Macs(0.6), resources=Resources(threads=1, trials=0), gates=Gates(accept_any=True)
    )
    assert result.report.macs.ratio <= 0.6


def test_class_ids_in_their_order_stay_what_is_compared():
    n = Net(17, seed=2)
    x = n.linear(n("Flatten", n.relu(n.conv(n.input(["n", 3, 12, 12]), 8, 3))), 1152, 10)
    values, places = n.add("TopK", x, n.constant(np.array([3])), outputs=2, axis=1)
    n.output(values, 2)
    n.output(places, 2, kind=7)
    assert not trace(Network(n.model())).observation.ranked


@pytest.mark.parametrize("steep", [1.0, 100.0])
def test_such_a_detector_is_pruned_and_its_error_is_that_of_boxes_and_scores(steep):
    model = detector(steep)
    result = prune(
        model, IMAGES, budget=Macs(0.6), resources=Resources(threads=1, trials=0), gates=Gates(accept_any=True)
    )
    found = result.report
    fronts = trace(Network(model)).observation.judged
    assert {*found.fidelity.outputs} == {*fronts}
    assert any("put in order by scores" in note for note in found.notes)
    before, after = (Session(item).run({"x": IMAGES}) for item in (model, result.model))
    (output,) = before
    assert before[output].shape == after[output].shape == (48, ROWS, 5)
    both = compare(model, result.model, IMAGES, threads=1).fidelity
    assert {*both.outputs} == {*fronts}
    assert max(item.relative_error for item in both.outputs.values()) < 1.0


def peaks(comparing: str, turned: bool):
    """A map of centres in which what is not the largest around it is zero."""
    n = Net(17, seed=3)
    x = n.relu(n.conv(n.relu(n.conv(n.input(["n", 3, 12, 12]), 32, 3)), 32, 3))
    heat = n("Sigmoid", n.conv(x, 1, 1), name="heat")
    plain = n("Transpose", heat, perm=[0, 2, 3, 1]) if turned else heat
    most = n("MaxPool", heat, kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1])
    most = n("Transpose", most, perm=[0, 2, 3, 1]) if turned else most
    sides = (most, plain) if comparing == "LessOrEqual" else (plain, most)
    n.output(n("Mul", plain, n("Cast", n(comparing, *sides), to=1)), 4)
    return n.model()


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("comparing", ["Equal", "GreaterOrEqual", "LessOrEqual"])
def test_peaks_of_a_map_are_judged_by_the_map(comparing, turned):
    """Rounding moves a peak, or makes two of one: a prune was refused as not what was planned."""
    model = peaks(comparing, turned)
    seen = trace(Network(model)).observation
    assert {*seen.ranked} == {*Network(model).outputs}
    assert len(*seen.ranked.values()) == 1  # the maxima say nothing more
    result = prune(model, IMAGES, budget=Macs(0.6), resources=Resources(threads=1, trials=0))
    errors = [item.relative_error for item in result.report.fidelity.outputs.values()]
    assert errors
    assert max(errors) < 0.3


def test_a_comparison_with_anything_but_maxima_of_the_same_map_is_judged_as_it_is():
    n = Net(17, seed=3)
    x = n.conv(n.relu(n.conv(n.input(["n", 3, 12, 12]), 32, 3)), 4, 1)
    other = n("MaxPool", n("Neg", x), kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1])
    n.output(n("Mul", x, n("Cast", n("GreaterOrEqual", x, other), to=1)), 4)
    assert not trace(Network(n.model())).observation.ranked
