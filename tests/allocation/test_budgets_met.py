"""Laws of the allocators where the cost is not a line in the width of a group, and of what they keep current."""

import itertools

import numpy as np
import pytest

from onnx_subprune.allocation import Curve, Factor, MarginalCost, Multilinear, Room, Term, Uniform
from onnx_subprune.allocation.descent import State

ALLOCATORS = [Uniform(), MarginalCost(power=1.0)]


def residual_network(generator):
    """Groups that multiply themselves, as a residual stream read and written by one convolution does."""
    names = ["a", "b", "c"]
    size = {name: Factor(float(generator.integers(0, 3)), {name: int(generator.integers(1, 3))}) for name in names}
    both = Factor(2.0, {"a": 1, "c": 4})
    pairs = [("a", "a"), ("a", "b"), ("c", "c"), ("b", "c")]
    terms = [Term(float(generator.integers(1, 10)), (size[x], size[y])) for x, y in pairs]
    terms.append(Term(3.0, (both, size["b"], both)))
    full = dict.fromkeys(names, 64)
    widths = (4, 16, 32, 48)
    fall = {name: generator.uniform(1, 6) * np.array(widths) / 64 for name in names}
    curves = {name: Curve(widths, tuple((generator.uniform(0.1, 3) * np.exp(-fall[name])).tolist())) for name in names}
    return [Room(name, 64) for name in names], curves, Multilinear(terms=tuple(terms), full=full)


@pytest.mark.parametrize("allocator", ALLOCATORS, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5, 0.8])
def test_the_budget_is_met_where_a_group_multiplies_itself(allocator, seed, fraction):
    rooms, curves, cost = residual_network(np.random.default_rng(seed))
    limit = fraction * cost({})
    widths = allocator.allocate(rooms, curves, cost, limit)
    assert cost(widths) <= limit
    for room in rooms:
        if widths[room.name] < room.width:
            assert cost({**widths, room.name: widths[room.name] + 1}) > limit


@pytest.mark.parametrize("seed", range(4))
def test_the_changes_of_all_widths_are_differences_of_two_costs(seed):
    generator = np.random.default_rng(seed)
    _, _, cost = residual_network(generator)
    widths = {name: int(generator.integers(1, 65)) for name in cost.full}
    options = np.arange(1, 65)
    for name in widths:
        expected = [cost({**widths, name: int(option)}) - cost(widths) for option in options]
        assert cost.changes(widths, name, options) == pytest.approx(np.array(expected))
        assert cost.change(widths, name, 7) == pytest.approx(expected[6])


def test_what_the_state_remembers_is_what_it_would_find_anew():
    generator = np.random.default_rng(0)
    rooms, curves, cost = residual_network(generator)
    state = State(rooms, curves, cost)
    for _ in range(30):
        number, place = int(generator.integers(3)), int(generator.integers(64))
        promised = [state.changes_after(number, place, other) for other in range(3)]
        state.move(number, place)
        assert state.spent == cost(state.widths)
        for other, room in enumerate(rooms):
            fresh = cost.changes(state.widths, room.name, np.array(room.choices))
            assert state.changes(other) == pytest.approx(fresh)
            assert promised[other] == pytest.approx(fresh)


@pytest.mark.parametrize("seed", range(6))
def test_no_single_exchange_of_two_groups_improves_marginal_cost(seed):
    rooms, curves, cost = residual_network(np.random.default_rng(seed))
    limit = 0.4 * cost({})
    errors = {room.name: curves[room.name].dense(room.width) for room in rooms}
    widths = dict(MarginalCost(power=1.0).allocate(rooms, curves, cost, limit))
    loss = sum(errors[name][width] for name, width in widths.items())
    for narrow, wide in itertools.permutations(widths, 2):
        for width in range(widths[wide] + 1, 65):
            trial = {**widths, wide: width, narrow: widths[narrow] - 1}
            if trial[narrow] >= 1 and cost(trial) <= limit:
                assert sum(errors[name][k] for name, k in trial.items()) >= loss * (1 - 1e-6)


def test_a_hundred_groups_need_few_evaluations_of_the_cost(monkeypatch):
    names = [f"g{i}" for i in range(100)]
    sizes = [Factor(0.0, {name: 1}) for name in names]
    cost = Multilinear(
        terms=tuple(Term(1.0 + i % 7, pair) for i, pair in enumerate(itertools.pairwise(sizes))),
        full=dict.fromkeys(names, 64),
    )
    curves = {name: Curve((8, 32), (1.0, 0.1 / (1 + i % 5))) for i, name in enumerate(names)}
    counted = []
    whole = Multilinear.__call__
    monkeypatch.setattr(Multilinear, "__call__", lambda self, widths: counted.append(1) or whole(self, widths))
    MarginalCost(power=1.0).allocate([Room(name, 64) for name in names], curves, cost, 0.3 * cost({}))
    assert len(counted) < 100 * 64
