"""Rows answer as moments do, where there are fewer of them than columns."""

import numpy as np
import pytest

from onnx_subprune.calibration.moments.accumulator import Collector
from onnx_subprune.calibration.moments.rows import RowCollector
from onnx_subprune.graph.contractions.product import Product
from onnx_subprune.selection import Forward, cross_validated

PRODUCT = Product(node="product")
FREE = np.zeros(10, np.int64)


def both(targets=7, samples=24, columns=40, order=(0, 1, 2, 3)):
    """Moments and rows of the same chunks, and weights."""
    generator = np.random.default_rng(targets)
    x = generator.standard_normal((samples, columns)).astype(np.float32) + 0.5
    weights = generator.standard_normal((1, columns, targets))
    y = (x @ weights[0] + 0.3 * generator.standard_normal((samples, targets))).astype(np.float32)
    sums, kept = Collector(PRODUCT), RowCollector(PRODUCT)
    for chunk in order:
        part = slice(chunk * samples // 4, (chunk + 1) * samples // 4)
        sums.add(x[part], y[part])
        kept.take(kept.products(x[part], y[part]), x.shape)
    return sums.moments(), kept.moments(), weights


@pytest.mark.parametrize("about_means", [False, True])
def test_rows_answer_as_moments_do(about_means):
    moments, rows, weights = both()
    moments, rows = (item.centered() if about_means else item for item in (moments, rows))
    assert rows.count == moments.count
    for left, right in ((rows.energy, moments.energy), (rows.sum_target, moments.sum_target)):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-4)
    assert rows.error(weights) == pytest.approx(moments.error(weights), rel=1e-3)
    np.testing.assert_allclose(rows.sum_output(weights), moments.sum_output(weights), rtol=1e-3, atol=1e-3)
    left = np.arange(3, 40)
    first, second = rows.normal(0, left), moments.normal(0, left)
    for strength in (1e-3, 1e-1):
        np.testing.assert_allclose(
            first.ridged(weights[0][left], strength), second.ridged(weights[0][left], strength), atol=1e-3
        )


def test_sums_targets_and_offsets_are_those_of_moments():
    (moments, rows, weights), (more, others, _) = both(), both(order=(3, 1))
    offset = np.arange(7.0)[None]
    first, second = ((a + b).with_target(weights).shifted(offset) for a, b in ((rows, others), (moments, more)))
    np.testing.assert_allclose(first.energy, second.energy, rtol=1e-5)
    np.testing.assert_allclose(first.sum_target, second.sum_target, rtol=1e-4, atol=1e-3)


def test_cross_validation_on_rows_finds_what_it_finds_on_grams():
    halves = [both(order=order) for order in ((0, 2), (1, 3))]
    weights = halves[0][2][0] + 0.5
    ours, theirs = ([half[form].normal(0, np.arange(40)) for half in halves] for form in (1, 0))
    strengths = (1e-2, 1e-1, 1.0)
    found, wanted = (
        ours[0].validated(ours[1], weights, strengths),
        cross_validated(theirs[0], theirs[1], weights, strengths),
    )
    assert found.strength == wanted.strength
    assert found.error == pytest.approx(wanted.error, rel=1e-3)
    assert found.prior_error == pytest.approx(wanted.prior_error, rel=1e-3)


@pytest.mark.parametrize("targets", [7, 60])
def test_the_problem_is_that_of_the_shrunk_moments_in_the_directions_of_the_target(targets):
    moments, rows, weights = both(targets)
    columns, left = np.arange(40).reshape(10, 4), np.arange(40)
    problem = rows.problem(columns, weights, left, 0.3)
    whole = moments.problem(columns, weights, left, 0.3)
    basis = np.linalg.svd(rows.target, full_matrices=False)[2] if targets > 24 else np.eye(targets)
    cross, gram = whole.cross @ basis.T, whole.gram
    np.testing.assert_allclose(problem.cross @ problem.cross.T, cross @ cross.T, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(problem.gram[np.ix_(left, left)], gram, atol=1e-3)
    choice = Forward().path([problem], [4], FREE)[0]
    kept = columns[list(choice.support)].ravel()
    explained = np.sum(cross[kept] * np.linalg.solve(gram[np.ix_(kept, kept)], cross[kept]))
    own = 0.3 * np.diagonal(moments.gram[0])[:, None]
    energy = 0.7 * float(moments.energy.sum()) + np.sum(own * (weights[0] @ basis.T) ** 2)
    assert choice.error == pytest.approx(1 - explained / energy, rel=1e-3)


def test_the_order_of_chunks_and_their_split_over_shards_do_not_change_a_byte():
    _, wanted, _ = both()
    _, found, _ = both(order=(2, 0, 3, 1))
    assert found.input.tobytes() == wanted.input.tobytes()
    assert found.target.tobytes() == wanted.target.tobytes()
    generator = np.random.default_rng(0)
    chunks = generator.standard_normal((4, 5, 8)).astype(np.float32)
    left, right = RowCollector(PRODUCT), RowCollector(PRODUCT)
    for place, chunk in enumerate(chunks):
        half = left if place % 2 else right
        half.take(half.products(chunk), chunk.shape)
    whole = left.empty()
    whole.merge(left)
    whole.merge(right)
    again = right.empty()
    again.merge(right)
    again.merge(left)
    assert whole.moments().input.tobytes() == again.moments().input.tobytes()
    assert whole.moments().count == 20
