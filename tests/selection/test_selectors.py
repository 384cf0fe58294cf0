"""Laws of the selectors, each over the table of all of them where it applies."""

import itertools

import numpy as np
import pytest

from onnx_subprune.errors import OptionError
from onnx_subprune.selection import (
    Backward,
    Forward,
    LayerGreedyFS,
    LayerSampling,
    Problem,
    Random,
    Refined,
    Shapley,
    Taylor,
    selectors,
)
from onnx_subprune.selection.linalg import elimination
from onnx_subprune.selection.selector import Choice, with_all_live
from tests.selection.layer import path

NAMES = sorted(selectors(0))
FREE = np.zeros(9, np.int64)


def rows(generator, width, block, fixed=0, targets=5, samples=300, duplicate=False):
    """Data and its problem: (B, T, Problem)."""
    p = width * block + fixed
    mixing = np.eye(p) + 0.3 * generator.standard_normal((p, p))
    inputs = generator.standard_normal((samples, p)) @ mixing
    if duplicate:
        inputs[:, block : 2 * block] = inputs[:, :block]
    weights = generator.standard_normal((p, targets))
    outputs = inputs @ weights + 0.1 * generator.standard_normal((samples, targets))
    columns = np.arange(width * block).reshape(width, block)
    problem = Problem(
        gram=inputs.T @ inputs,
        cross=inputs.T @ outputs,
        energy=float((outputs**2).sum()),
        columns=columns,
        prior=weights,
    )
    return inputs, outputs, problem


def residual(inputs, outputs, problem, support):
    kept = problem.kept(support)
    best = np.linalg.lstsq(inputs[:, kept], outputs, rcond=1e-9)[0]
    return float(((outputs - inputs[:, kept] @ best) ** 2).sum()) / problem.energy


def naive_greedy(data, width, size):
    """Least squares from the rows at every step."""
    chosen: list[int] = []
    for _ in range(size):
        errors = {
            i: sum(residual(*item, [*chosen, i]) for item in data) / len(data) for i in range(width) if i not in chosen
        }
        lowest = min(errors.values())
        chosen.append(min(i for i, error in errors.items() if error <= lowest + 1e-10))
    return tuple(sorted(chosen)), lowest


@pytest.mark.parametrize("block", [1, 4, 9])
@pytest.mark.parametrize("consumers", [1, 3])
@pytest.mark.parametrize("duplicate", [False, True])
@pytest.mark.parametrize("fixed", [0, 3])
def test_forward_equals_least_squares_from_the_rows_at_every_step(block, consumers, duplicate, fixed):
    generator = np.random.default_rng(block + 10 * consumers)
    data = [rows(generator, 7, block, fixed, duplicate=duplicate) for _ in range(consumers)]
    problems = [item[2] for item in data]
    for size in (1, 2, 4, 6):
        choice = Forward().path(problems, [size], np.zeros(7, np.int64))[0]
        support, error = naive_greedy(data, 7, size)
        assert choice.support == support
        assert choice.error == pytest.approx(error, abs=1e-7)


def test_forward_with_more_targets_than_columns_is_the_same_greedy():
    data = rows(np.random.default_rng(5), 6, 1, targets=40)
    assert Forward().path([data[2]], [3], np.zeros(6, np.int64))[0].support == naive_greedy([data], 6, 3)[0]


def test_wide_problems_agree_with_narrow_panels(monkeypatch):
    """The waiting panel of updates is an optimisation only."""
    problem = rows(np.random.default_rng(0), 40, 4, samples=800)[2]
    wide = Forward().path([problem], [1, 20, 39], np.zeros(40, np.int64))
    monkeypatch.setattr("onnx_subprune.selection.linalg.elimination.PANEL", 1)
    assert Forward().path([problem], [1, 20, 39], np.zeros(40, np.int64)) == pytest.approx(wide) or [
        c.support for c in Forward().path([problem], [1, 20, 39], np.zeros(40, np.int64))
    ] == [c.support for c in wide]


@pytest.mark.parametrize("selector", [Forward, Backward])
@pytest.mark.parametrize("block", [1, 3])
def test_threads_change_nothing(monkeypatch, selector, block):
    monkeypatch.setattr(elimination, "LARGE", 0)
    monkeypatch.setattr(elimination, "PANEL", 8)
    problems = [rows(np.random.default_rng(seed), 9, block)[2] for seed in range(2)]
    assert selector().path(problems, range(1, 9), FREE, threads=2) == selector().path(problems, range(1, 9), FREE)


@pytest.mark.parametrize("name", NAMES)
def test_a_support_has_the_size_asked_for_is_sorted_and_unique(name):
    problem = rows(np.random.default_rng(1), 9, 2)[2]
    for size, choice in zip((1, 4, 8), path(selectors(3)[name], [problem], (1, 4, 8), FREE), strict=True):
        assert len(set(choice.support)) == size
        assert list(choice.support) == sorted(choice.support)
        assert choice.error == pytest.approx(problem.error(choice.support), abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_cells_stay_level(name):
    problem = rows(np.random.default_rng(2), 9, 2)[2]
    cells = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
    for choice in path(selectors(3)[name], [problem], (3, 6), cells):
        assert set(np.bincount(cells[list(choice.support)]).tolist()) == {len(choice.support) // 3}


@pytest.mark.parametrize("name", ["forward", "backward", "refined"])
def test_the_error_never_rises_with_the_width(name):
    problem = rows(np.random.default_rng(3), 9, 4)[2]
    errors = [choice.error for choice in selectors(0)[name].path([problem], range(1, 10), FREE)]
    assert all(b <= a + 1e-9 for a, b in itertools.pairwise(errors))


@pytest.mark.parametrize(
    "name", ["forward", "backward", "refined", "weight-norm", "activation-norm", "wanda", "taylor", "layer-greedy-fs"]
)
def test_permuting_the_channels_permutes_the_answer(name):
    generator = np.random.default_rng(4)
    problem = rows(generator, 9, 2)[2]
    order = generator.permutation(9)
    permuted = Problem(
        gram=problem.gram,
        cross=problem.cross,
        energy=problem.energy,
        columns=problem.columns[order],
        prior=problem.prior,
    )
    selector = selectors(0)[name]
    plain, moved = path(selector, [problem], [4], FREE)[0], path(selector, [permuted], [4], FREE)[0]
    assert sorted(int(order[i]) for i in moved.support) == list(plain.support)


@pytest.mark.parametrize("seed", range(6))
def test_refined_is_never_worse_than_forward_and_close_to_the_optimum(seed):
    problem = rows(np.random.default_rng(seed), 8, 1, targets=3)[2]
    free = np.zeros(8, np.int64)
    for size in (2, 4, 6):
        best = min(problem.error(support) for support in itertools.combinations(range(8), size))
        refined = Refined().path([problem], [size], free)[0].error
        assert refined <= Forward().path([problem], [size], free)[0].error + 1e-12
        assert refined <= Backward().path([problem], [size], free)[0].error + 1e-12
        assert 1 - refined >= 0.98 * (1 - best)


def test_exactly_dependent_channels_are_worth_nothing():
    generator = np.random.default_rng(7)
    inputs, outputs, _ = rows(generator, 4, 2)
    inputs = np.hstack([inputs, inputs])
    problem = Problem(
        gram=inputs.T @ inputs,
        cross=inputs.T @ outputs,
        energy=float((outputs**2).sum()),
        columns=np.arange(16).reshape(8, 2),
        prior=np.ones((16, 5)),
    )
    assert Forward().path([problem], [4], np.zeros(8, np.int64))[0].support == (0, 1, 2, 3)
    assert Backward().path([problem], [4], np.zeros(8, np.int64))[0].error < 0.01


def test_equal_seeds_draw_equal_channels():
    problem = rows(np.random.default_rng(8), 9, 1)[2]
    assert Random(1).path([problem], [4], FREE) == Random(1).path([problem], [4], FREE)
    assert Random(1).path([problem], [4], FREE) != Random(2).path([problem], [4], FREE)


def test_keeping_everything_leaves_the_error_of_the_full_regression():
    inputs, outputs, problem = rows(np.random.default_rng(9), 5, 3, fixed=2)
    assert problem.error(range(5)) == pytest.approx(residual(inputs, outputs, problem, range(5)), abs=1e-9)
    assert problem.plain_error(range(5)) == pytest.approx(
        float(((outputs - inputs @ problem.prior) ** 2).sum()) / problem.energy, abs=1e-9
    )


@pytest.mark.parametrize(
    ("kind", "settings", "told"),
    [
        (Random, {"seed": -1}, "seed -1: at least 0"),
        (LayerSampling, {"seed": -1}, "seed -1"),
        (Shapley, {"seed": -1}, "seed -1"),
        (Shapley, {"permutations": 0}, "permutations 0: at least 1"),
        (Taylor, {"samples": 0}, "samples 0"),
        (LayerGreedyFS, {"samples": -2}, "samples -2"),
    ],
)
def test_settings_that_make_no_sense_are_refused(kind, settings, told):
    with pytest.raises(OptionError, match=told):
        kind(**settings)


@pytest.mark.parametrize(
    ("presence", "support", "wanted"),
    [
        ((1.0, 0.0, 2.0, 0.0, 0.0), (1, 3), (0, 2)),
        ((1.0, 0.0, 2.0, 0.0, 0.0), (1, 3, 4), (0, 1, 2)),
        ((1.0, 0.0, 2.0, 0.0, 3.0), (1, 3), (1, 3)),
        ((1.0, 0.0, 2.0, 0.0, 0.0), (0, 2, 3), (0, 2, 3)),
        (None, (1, 3), (1, 3)),
    ],
    ids=["all fit", "more than all", "not all fit", "all are there", "not known"],
)
def test_channels_that_bring_anything_are_kept_where_all_of_them_fit(presence, support, wanted):
    rows = np.random.default_rng(0).standard_normal((3, 5))  # fewer than channels: others do as well here
    target = rows[:, [0, 2]].sum(axis=1, keepdims=True)
    problem = Problem(
        gram=rows.T @ rows,
        cross=rows.T @ target,
        energy=float(np.sum(target**2)),
        columns=np.arange(5)[:, None],
        prior=np.array([[1.0], [0.0], [1.0], [0.0], [0.0]]),
        presence=None if presence is None else np.array(presence),
    )
    assert with_all_live([problem], Choice(support, 0.5), np.zeros(5, np.int64)).support == wanted
