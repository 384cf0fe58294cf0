"""What a selection must not depend on: the scale of a channel, dead channels, rounding."""

import numpy as np
import pytest

from onnx_subprune.selection import Forward, Problem, pseudo_solve, selectors
from onnx_subprune.selection.linalg.elimination import Elimination
from tests.selection.layer import path

NAMES = sorted(selectors(0))
EXACT = ["forward", "backward", "refined"]


def problem_of(inputs, weights, block, noise=0.0, generator=None):
    outputs = inputs @ weights
    if generator is not None:
        outputs = outputs + noise * generator.standard_normal(outputs.shape)
    return Problem(
        gram=inputs.T @ inputs,
        cross=inputs.T @ outputs,
        energy=float((outputs**2).sum()),
        columns=np.arange(inputs.shape[1]).reshape(-1, block),
        prior=weights,
    )


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("ratio", [1e3, 1e6])
def test_scaling_a_channel_and_its_weights_inversely_changes_nothing(name, seed, ratio):
    generator = np.random.default_rng(seed)
    mixing = np.eye(20) + 0.3 * generator.standard_normal((20, 20))
    inputs, weights = generator.standard_normal((300, 20)) @ mixing, generator.standard_normal((20, 5))
    scale = np.repeat(ratio ** generator.uniform(-0.5, 0.5, 10), 2)
    sizes, cells = (3, 4, 7), np.zeros(10, np.int64)
    plain = selectors(0)[name].path([problem_of(inputs, weights, 2)], sizes, cells)
    scaled = selectors(0)[name].path([problem_of(inputs * scale, weights / scale[:, None], 2)], sizes, cells)
    assert [choice.support for choice in scaled] == [choice.support for choice in plain]
    assert [choice.error for choice in scaled] == pytest.approx([choice.error for choice in plain], abs=1e-7)


def test_a_small_column_is_not_a_dependent_one():
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((50, 4)) * np.array([1e6, 1.0, 1.0, 1e-2])
    inputs = np.hstack([inputs, inputs[:, :1]])
    weights = np.array([[1e-6], [1.0], [-1.0], [100.0], [0.0]])
    solved = pseudo_solve(inputs.T @ inputs, inputs.T @ (inputs @ weights))
    assert inputs @ solved == pytest.approx(inputs @ weights, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("block", [1, 3])
def test_inputs_that_are_all_zero_are_a_problem_like_any_other(name, block):
    zero = problem_of(np.zeros((10, 4 * block)), np.ones((4 * block, 2)), block)
    silent = Problem(gram=zero.gram, cross=zero.cross, energy=3.0, columns=zero.columns, prior=zero.prior)
    for problem in (zero, silent):
        choice = path(selectors(0)[name], [problem], [2], np.zeros(4, np.int64))[0]
        assert len(choice.support) == 2
        assert choice.error == (1.0 if problem is silent else 0.0)


@pytest.mark.parametrize(
    "name",
    [*EXACT, "interpolative", "activation-norm", "wanda", "layer-sampling", "taylor", "layer-greedy-fs", "shapley"],
)
@pytest.mark.parametrize("block", [1, 3])
def test_a_dead_channel_goes_first(name, block):
    generator = np.random.default_rng(1)
    inputs = generator.standard_normal((60, 5 * block))
    inputs[:, 2 * block : 3 * block] = 0.0
    problem = problem_of(inputs, generator.standard_normal((5 * block, 3)), block)
    choice = path(selectors(0)[name], [problem], [4], np.zeros(5, np.int64))[0]
    assert choice.support == (0, 1, 3, 4)
    assert choice.error == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("seed", range(5))
def test_when_nothing_is_left_to_explain_the_lowest_channels_follow(seed):
    generator = np.random.default_rng(seed)
    half = generator.standard_normal((100, 6))
    inputs = np.hstack([half, half @ generator.standard_normal((6, 6))])
    problem = problem_of(inputs, np.vstack([generator.standard_normal((6, 4)), np.zeros((6, 4))]), 1)
    enough, more = Forward().path([problem], [6, 9], np.zeros(12, np.int64))
    others = [i for i in range(12) if i not in enough.support]
    assert enough.error < 1e-6
    assert more.support == tuple(sorted([*enough.support, *others[:3]]))


@pytest.mark.parametrize("block", [1, 4])
def test_eliminating_leaves_the_energy_that_the_rest_does_not_share(block):
    generator = np.random.default_rng(2)
    mixing = np.eye(6 * block) + 0.5 * generator.standard_normal((6 * block, 6 * block))
    inputs = generator.standard_normal((100, 6 * block)) @ mixing * np.repeat(10.0 ** np.arange(6), block)
    state = Elimination(inputs.T @ inputs, np.zeros((6 * block, 0)), block)
    for gone in ([3], [3, 0], [3, 0, 5]):
        state.eliminate(gone[-1])
        own = np.concatenate([np.arange(i * block, (i + 1) * block) for i in gone])
        rest = inputs - inputs[:, own] @ np.linalg.lstsq(inputs[:, own], inputs, rcond=None)[0]
        expected = (rest**2).sum(axis=0).reshape(6, block).sum(axis=1)
        expected[gone] = 0.0
        assert state.energies() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("width", "block", "panel", "chunk"), [(30, 4, 16, 7), (30, 1, 8, 5), (16, 9, 30, 64), (9, 2, 999, 999)]
)
def test_the_worths_are_right_across_the_borders_of_panels_and_chunks(monkeypatch, width, block, panel, chunk):
    monkeypatch.setattr("onnx_subprune.selection.linalg.elimination.PANEL", panel)
    monkeypatch.setattr("onnx_subprune.selection.linalg.residual.CHUNK", chunk)
    generator = np.random.default_rng(width)
    p = width * block
    inputs = generator.standard_normal((3 * p, p)) @ (np.eye(p) + 0.1 * generator.standard_normal((p, p)))
    gram, cross = inputs.T @ inputs, inputs.T @ generator.standard_normal((3 * p, 3))
    state = Elimination(gram.copy(), cross.copy(), block)
    columns = np.arange(p).reshape(width, block)
    gone: list[int] = []
    for channel in generator.permutation(width)[:-1].tolist():
        state.eliminate(channel)
        gone.append(channel)
        own = columns[gone].ravel()
        solved = np.linalg.solve(gram[np.ix_(own, own)], np.hstack([gram[own], cross[own]]))
        rest, target = gram - gram[:, own] @ solved[:, :p], cross - gram[:, own] @ solved[:, p:]
        expected = np.zeros(width)
        for i in set(range(width)) - set(gone):
            c = target[columns[i]]
            expected[i] = np.sum(c * np.linalg.solve(rest[np.ix_(columns[i], columns[i])], c))
        assert state.gains() == pytest.approx(expected, rel=1e-5)


def test_a_gram_that_rounding_made_indefinite_still_gives_a_support():
    """Float32 products leave negative directions where channels depend on one another."""
    generator = np.random.default_rng(0)
    base = generator.standard_normal((400, 9))
    inputs = np.hstack([base, base @ generator.standard_normal((9, 27))]).astype(np.float32)
    gram = (inputs.T @ inputs).astype(np.float64)
    gram -= 1e-6 * np.trace(gram) / len(gram) * np.eye(len(gram))
    weights = generator.standard_normal((36, 5))
    problem = Problem(
        gram=gram,
        cross=gram @ weights,
        energy=float(np.sum(weights * (gram @ weights))),
        columns=np.arange(36).reshape(4, 9),
        prior=weights,
    )
    for name in ("forward", "backward", "refined"):
        for choice in selectors(0)[name].path([problem], (1, 2, 3), np.zeros(4, np.int64)):
            assert np.isfinite(choice.error)


@pytest.mark.parametrize("block", [1, 3])
def test_channels_beside_others_are_worth_what_elimination_says(block):
    generator = np.random.default_rng(block)
    inputs, weights = generator.standard_normal((200, 36)), generator.standard_normal((36, 4))
    whole = problem_of(inputs @ (np.eye(36) + 0.3 * generator.standard_normal((36, 36))), weights, block)
    problem = Problem(
        gram=whole.gram,
        cross=whole.cross,
        energy=whole.energy,
        columns=whole.columns[1:],  # the first channel's columns are fixed
        prior=whole.prior,
    )
    gram, cross, _ = problem.reduced()
    state = Elimination(gram, cross, block)
    inside = [0, 2, 7]
    for channel in inside:
        state.eliminate(channel)
    gram, cross, left = problem.beside(inside)
    others = np.setdiff1d(np.arange(problem.width), inside)
    np.testing.assert_allclose(Elimination(gram, cross, block).gains(), state.gains()[others], rtol=1e-6)
    assert left / problem.energy == pytest.approx(problem.error(inside), abs=1e-9)
