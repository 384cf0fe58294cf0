"""Laws of the criteria that run the model, on losses that are known functions of the gates."""

import itertools

import numpy as np
import pytest

from onnx_subprune.selection import LayerGreedyFS, Shapley, Taylor


def quadratic(seed, width=6):
    """A loss with interactions, zero at the original: ||A (1 - g)||^2."""
    mixing = np.random.default_rng(seed).standard_normal((9, width))
    return lambda gates: np.sum(((1 - gates) @ mixing.T) ** 2, axis=1), mixing


def free(width):
    return np.zeros(width, np.int64)


def test_the_second_difference_of_a_quadratic_loss_is_its_curvature():
    loss, mixing = quadratic(0)
    assert Taylor().scores(loss, free(6), 3) == pytest.approx(np.sum(mixing**2, axis=0))
    assert Taylor(step=0.5).scores(loss, free(6), 3) == pytest.approx(np.sum(mixing**2, axis=0))


@pytest.mark.parametrize("selector", [Taylor(), Shapley(), Shapley(seed=4, permutations=2)])
def test_a_channel_that_nobody_reads_is_worth_nothing(selector):
    loss, mixing = quadratic(1)
    mixing[:, 2] = 0.0
    scores = selector.scores(loss, free(6), 5)
    assert scores[2] == pytest.approx(0.0, abs=1e-12)
    assert np.all(np.abs(np.delete(scores, 2)) > 1e-3)


@pytest.mark.parametrize("permutations", [1, 5])
def test_shapley_values_sum_to_the_loss_of_removing_everything(permutations):
    loss, _ = quadratic(2)
    scores = Shapley(permutations=permutations).scores(loss, free(6), 3)
    assert scores.sum() == pytest.approx(float(loss(np.zeros((1, 6)))[0] - loss(np.ones((1, 6)))[0]))


def test_shapley_over_many_orders_comes_close_to_the_mean_over_all():
    loss, _ = quadratic(3, width=4)
    exact = np.zeros(4)
    for order in itertools.permutations(range(4)):
        gate = np.ones(4)
        for channel in order:
            before = float(loss(gate[None])[0])
            gate[channel] = 0.0
            exact[channel] += (float(loss(gate[None])[0]) - before) / 24
    many = Shapley(permutations=3000).scores(loss, free(4), 2)
    assert many == pytest.approx(exact, abs=0.05 * np.abs(exact).max())
    assert np.argsort(many).tolist() == np.argsort(exact).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_greedy_addition_equals_brute_force_step_by_step(seed):
    loss, _ = quadratic(seed)
    chosen: list[int] = []
    for size in range(1, 6):
        left = [i for i in range(6) if i not in chosen]
        chosen.append(min(left, key=lambda i: float(loss(np.isin(np.arange(6), [*chosen, i]).astype(float)[None])[0])))
        scores = LayerGreedyFS().scores(loss, free(6), size)
        assert set(np.argsort(-scores, kind="stable")[:size].tolist()) == set(chosen)


def test_greedy_addition_costs_as_many_runs_as_it_says():
    loss, _ = quadratic(0, width=10)
    runs = []
    LayerGreedyFS().scores(lambda gates: runs.append(len(gates)) or loss(gates), free(10), 4)
    assert sum(runs) == 4 * (2 * 10 - 4 + 1) / 2


def test_greedy_addition_takes_from_the_cells_in_turn():
    loss, mixing = quadratic(0)
    mixing[:, :3] *= 100.0  # without cells all of the first three would come first
    scores = LayerGreedyFS().scores(loss, np.array([0, 0, 0, 1, 1, 1]), 4)
    best = np.argsort(-scores, kind="stable")[:4]
    assert np.bincount(best // 3).tolist() == [2, 2]
