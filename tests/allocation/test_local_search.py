"""Local moves: never worse, never dearer, within their trials, and better where groups work together."""

import numpy as np
import pytest

from onnx_subprune.allocation import Bound, MarginalCost, Room, Terrain, local_moves
from tests.allocation.test_allocators import network

POWER = MarginalCost(power=1.0)


def search(seed, judge, trials=40, fraction=0.5, step=1):
    rooms, curves, cost = network(np.random.default_rng(seed), 5)
    rooms = [Room(room.name, room.width, step) for room in rooms]
    limit = fraction * cost({})
    start = POWER.allocate(rooms, curves, cost, limit)
    terrain = Terrain(rooms=rooms, errors=POWER.tempered(rooms, curves), bound=Bound(cost, limit))
    found = local_moves(terrain, [start], judge, trials)
    return rooms, cost, limit, start, found


def wished(seed):
    """A loss with its least value at some widths, and the calls that were made."""
    rng = np.random.default_rng([seed, 1])
    aims, calls = {f"g{i}": int(rng.integers(1, 9)) for i in range(5)}, []

    def loss(widths):
        calls.append(dict(widths))
        return 1.0 + sum((widths[name] - aim) ** 2 for name, aim in aims.items())

    return loss, calls


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("step", [1, 2])
def test_the_result_is_the_best_that_was_tried_and_costs_no_more(seed, step):
    loss, calls = wished(seed)
    rooms, cost, limit, start, found = search(seed, loss, step=step)
    assert cost(found) <= limit
    assert all(cost(widths) <= limit for widths in calls)
    assert all(found[room.name] in room.choices for room in rooms)
    assert calls[0] == dict(start)
    assert len({tuple(widths.values()) for widths in calls}) == len(calls) <= 40
    assert loss(found) * (1 - 0.04) <= min([loss(widths) for widths in list(calls)])


def test_moves_find_better_widths():
    better = 0
    for seed in range(8):
        loss, _ = wished(seed)
        *_, start, found = search(seed, loss)
        assert loss(found) <= loss(start)
        better += loss(found) < loss(start)
    assert better >= 4


def test_the_start_stays_where_nothing_is_better_by_enough():
    *_, start, found = search(2, lambda widths: 1.0 - 1e-3 * sum(widths.values()) / 100)
    assert found == dict(start)


@pytest.mark.parametrize("trials", [2, 3, 7])
def test_no_more_than_the_trials_are_made(trials):
    loss, calls = wished(0)
    search(0, loss, trials=trials)
    assert len(calls) <= trials


def test_moves_begin_at_the_better_start():
    loss, calls = wished(1)
    rooms, curves, cost = network(np.random.default_rng(1), 5)
    limit = 0.5 * cost({})
    starts = [MarginalCost(power=power).allocate(rooms, curves, cost, limit) for power in (0.2, 3.0)]
    assert starts[0] != starts[1]
    terrain = Terrain(rooms=rooms, errors=POWER.tempered(rooms, curves), bound=Bound(cost, limit))
    found = local_moves(terrain, starts, loss, 2)
    assert calls == starts
    assert found == min(starts, key=loss)
