"""One threshold of a metric for all groups."""

import itertools

import numpy as np
import pytest

from onnx_subprune.allocation import Curve, Factor, Multilinear, Room, Term, Threshold
from onnx_subprune.allocation.threshold import straight
from onnx_subprune.errors import BudgetError


def chain(*widths):
    """Layers in a chain: each costs the product of the widths beside it; input and output have 3 and 10."""
    names = [f"g{i}" for i in range(len(widths))]
    ends = [Factor(3, {}), *(Factor(0, {name: 1}) for name in names), Factor(10, {})]
    terms = tuple(Term(1.0, pair) for pair in itertools.pairwise(ends))
    return Multilinear(terms, dict(zip(names, widths, strict=True)))


def falling(rng, width):
    tried = sorted({1, width // 4, width // 2, 3 * width // 4} - {0, width})
    return Curve(tuple(tried), tuple(sorted(rng.uniform(-0.01, 0.5, len(tried)), reverse=True)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_the_budget_is_met_and_no_group_fits_one_step_wider(seed, share):
    rng = np.random.default_rng(seed)
    sizes = [int(w) for w in rng.integers(4, 24, 4)]
    cost, rooms = chain(*sizes), [Room(f"g{i}", w) for i, w in enumerate(sizes)]
    curves = {room.name: falling(rng, room.width) for room in rooms}
    widths = Threshold().allocate(rooms, curves, cost, share * cost({}))
    assert cost(widths) <= share * cost({})
    for room in rooms:
        if widths[room.name] < room.width:
            assert cost({**widths, room.name: widths[room.name] + 1}) > share * cost({})


@pytest.mark.parametrize("seed", range(5))
def test_before_what_is_left_is_spent_the_threshold_is_the_highest_that_fits(seed):
    rng = np.random.default_rng(seed)
    sizes = [int(w) for w in rng.integers(3, 9, 3)]
    cost, rooms = chain(*sizes), [Room(f"g{i}", w) for i, w in enumerate(sizes)]
    curves = {room.name: falling(rng, room.width) for room in rooms}
    drops = {room.name: straight(curves[room.name], room.width) for room in rooms}
    limit = 0.5 * cost({})
    found = Threshold().allocate(rooms, curves, cost, limit)
    fitting = [
        level
        for level in np.unique(np.concatenate([drop[1:] for drop in drops.values()]))
        if cost({room.name: next(w for w in room.choices if drops[room.name][w] <= level) for room in rooms}) <= limit
    ]
    assert all(drops[name][width] <= min(fitting) for name, width in found.items())


def test_a_group_that_the_metric_does_not_need_goes_first():
    cost = chain(16, 16)
    curves = {"g0": Curve((4, 8), (0.0, 0.0)), "g1": Curve((4, 8), (0.4, 0.2))}
    widths = Threshold().allocate([Room("g0", 16), Room("g1", 16)], curves, cost, 0.5 * cost({}))
    assert widths["g0"] < 8
    assert widths["g1"] == 16


def test_drops_never_rise_with_the_width_and_gains_are_no_drop():
    drops = straight(Curve((2, 4, 6), (0.1, 0.3, -0.2)), 8)
    assert np.all(np.diff(drops) <= 0)
    assert drops[4] == drops[2] == 0.3
    assert drops[6] == drops[8] == 0.0
    assert drops[5] == pytest.approx(0.15)


def test_what_cannot_be_reached_is_said():
    cost = chain(8)
    with pytest.raises(BudgetError, match="the least is"):
        Threshold().allocate([Room("g0", 8, minimum=6)], {"g0": Curve((6,), (0.1,))}, cost, 0.1 * cost({}))
