"""Laws of the allocators, over random costs."""

import itertools

import numpy as np
import pytest

from onnx_subprune.allocation import (
    Channels,
    Curve,
    Factor,
    Macs,
    MarginalCost,
    Multilinear,
    Room,
    Term,
    Uniform,
    proportional,
)
from onnx_subprune.errors import BudgetError

ALLOCATORS = [Uniform(), MarginalCost(power=1.0)]


def network(generator, groups):
    """A chain: every layer costs the product of its neighbours' widths."""
    names = [f"g{i}" for i in range(groups)]
    full = {name: int(generator.integers(3, 9)) for name in names}
    sizes = [Factor(3, {}), *(Factor(0, {name: 1}) for name in names), Factor(10, {})]
    terms = tuple(Term(float(generator.integers(1, 50)), pair) for pair in itertools.pairwise(sizes))
    curves = {}
    for name in names:
        widths = tuple(range(1, full[name]))
        errors = tuple(np.sort(generator.random(len(widths)))[::-1].tolist())
        curves[name] = Curve(widths, errors)
    return [Room(name, full[name]) for name in names], curves, Multilinear(terms=terms, full=full)


@pytest.mark.parametrize("allocator", ALLOCATORS, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.8])
def test_the_budget_is_met_and_no_group_could_be_a_step_wider(allocator, seed, fraction):
    rooms, curves, cost = network(np.random.default_rng(seed), 6)
    limit = fraction * cost({})
    widths = allocator.allocate(rooms, curves, cost, limit)
    assert cost(widths) <= limit
    for room in rooms:
        if widths[room.name] < room.width:
            assert cost({**widths, room.name: widths[room.name] + 1}) > limit


@pytest.mark.parametrize("allocator", ALLOCATORS, ids=lambda a: type(a).__name__)
def test_steps_and_minimum_widths_are_kept(allocator):
    _, curves, cost = network(np.random.default_rng(1), 4)
    rooms = [Room(name, width, 2, 2) for name, width in cost.full.items()]
    widths = allocator.allocate(rooms, curves, cost, 0.6 * cost({}))
    assert all(width % 2 == 0 or width == cost.full[name] for name, width in widths.items())
    assert min(widths.values()) >= 2


@pytest.mark.parametrize("allocator", ALLOCATORS, ids=lambda a: type(a).__name__)
def test_an_unreachable_budget_names_the_least_reachable(allocator):
    rooms, curves, cost = network(np.random.default_rng(2), 3)
    with pytest.raises(BudgetError, match="the least is"):
        allocator.allocate(rooms, curves, cost, 0.01 * cost({}))


@pytest.mark.parametrize("seed", range(8))
def test_marginal_cost_comes_close_to_the_best_of_all_widths(seed):
    rooms, curves, cost = network(np.random.default_rng(seed), 4)
    limit = 0.5 * cost({})
    dense = {room.name: curves[room.name].dense(room.width) for room in rooms}

    def error(widths):
        return sum(dense[name][width] for name, width in widths.items())

    names = [room.name for room in rooms]
    every = (dict(zip(names, pick, strict=True)) for pick in itertools.product(*(room.choices for room in rooms)))
    best = min(error(widths) for widths in every if cost(widths) <= limit)
    found = error(MarginalCost(power=1.0).allocate(rooms, curves, cost, limit))
    uniform = error(Uniform().allocate(rooms, curves, cost, limit))
    assert found <= max(1.6 * best, best + 0.15)
    assert found <= uniform + 1e-9


def test_a_change_of_one_width_is_the_difference_of_two_costs():
    _, _, cost = network(np.random.default_rng(3), 5)
    widths = {name: width - 1 for name, width in cost.full.items()}
    for name in widths:
        assert cost.change(widths, name, 1) == pytest.approx(cost({**widths, name: 1}) - cost(widths))


def test_dense_curves_fall_and_end_at_zero():
    dense = Curve((2, 4, 6), (0.5, 0.6, 0.01)).dense(8)
    assert dense[8] == 0.0
    assert np.all(np.diff(dense) <= 0)
    assert dense[2] == pytest.approx(0.6)


def test_channels_round_to_allowed_widths():
    assert proportional([Room("a", 16, 4), Room("b", 10), Room("c", 3)], 0.25) == {"a": 4, "b": 2, "c": 1}


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, 2.0, float("nan")])
@pytest.mark.parametrize("kind", [Macs, Channels])
def test_a_budget_is_a_fraction(kind, fraction):
    with pytest.raises(BudgetError, match="between 0 and 1"):
        kind(fraction)
