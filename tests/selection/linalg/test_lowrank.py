"""A gram given by its rows answers like the array that it stands for."""

import numpy as np
import pytest

from onnx_subprune.selection import ProbingSelector, Problem, selectors
from onnx_subprune.selection.linalg.lowrank import LowRank, taken

SELECTORS = {name: item for name, item in selectors(0).items() if not isinstance(item, ProbingSelector)}


def low_rank(generator, samples=12, columns=40, sign=1):
    rows = generator.standard_normal((samples, columns))
    return LowRank(rows * (1.0 if sign > 0 else 0.05), generator.uniform(0.5, 2.0, columns), sign)


def dense(gram):
    return np.diag(gram.damping) + gram.sign * gram.rows.T @ gram.rows


@pytest.mark.parametrize("sign", [1, -1])
def test_all_operations_are_those_of_the_array(sign):
    generator = np.random.default_rng(0)
    gram = low_rank(generator, sign=sign)
    whole, cross = dense(gram), generator.standard_normal((40, 3))
    left, right, scale = np.array([3, 7, 8]), np.array([8, 1]), np.exp(generator.standard_normal(40))
    np.testing.assert_allclose(gram[np.ix_(left, right)], whole[np.ix_(left, right)], atol=1e-12)
    np.testing.assert_allclose(gram.diagonal(), whole.diagonal())
    np.testing.assert_allclose(gram @ cross, whole @ cross)
    np.testing.assert_allclose(gram.solve(cross), np.linalg.solve(whole, cross))
    np.testing.assert_allclose(dense(gram.inverse()), np.linalg.inv(whole), atol=1e-12)
    np.testing.assert_allclose(dense(gram.scaled(scale)), whole * scale * scale[:, None])
    np.testing.assert_allclose(dense(gram.damped(0.3)), whole + 0.3 * np.eye(40))
    rest = np.setdiff1d(np.arange(40), left)
    schur = whole[np.ix_(rest, rest)] - whole[np.ix_(rest, left)] @ np.linalg.solve(
        whole[np.ix_(left, left)], whole[np.ix_(left, rest)]
    )
    np.testing.assert_allclose(dense(gram.without(left, rest)), schur, atol=1e-12)
    np.testing.assert_allclose(dense(taken(gram, left)), taken(whole, left))


@pytest.mark.parametrize("name", sorted(SELECTORS))
@pytest.mark.parametrize("fixed", [0, 5])
@pytest.mark.parametrize("block", [1, 4])
def test_every_selector_chooses_from_rows_as_from_the_gram(name, fixed, block, monkeypatch):
    monkeypatch.setattr("onnx_subprune.selection.linalg.elimination.PANEL", 7)
    generator = np.random.default_rng(block)
    columns = np.arange(block * 12).reshape(12, block) + fixed
    gram = low_rank(generator, columns=12 * block + fixed, samples=15)
    cross = gram @ generator.standard_normal((len(gram), 3))
    energy = float(np.sum(cross * gram.solve(cross))) * 1.05
    prior = generator.standard_normal((len(gram), 3))
    problems = [
        Problem(gram=form, cross=cross, energy=energy, columns=columns, prior=prior) for form in (gram, dense(gram))
    ]
    found, wanted = (SELECTORS[name].path([problem], [2, 5, 9], np.zeros(12, np.int64)) for problem in problems)
    assert [choice.support for choice in found] == [choice.support for choice in wanted]
    np.testing.assert_allclose([choice.error for choice in found], [choice.error for choice in wanted], rtol=1e-8)
    assert problems[0].plain_error((1, 2)) == pytest.approx(problems[1].plain_error((1, 2)))
