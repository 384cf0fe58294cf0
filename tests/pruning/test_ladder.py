"""The allocations for every fraction of a cost."""

import pytest

from onnx_subprune.allocation import Curve, MarginalCost
from onnx_subprune.allocation.multilinear import Factor, Multilinear, Term
from onnx_subprune.allocation.uniform import Uniform
from onnx_subprune.allocation.widths import Room
from onnx_subprune.pruning.budgets.grids import best_grid
from onnx_subprune.pruning.budgets.ladder import Ladder, filled_up
from onnx_subprune.runtime.progress import silent


def test_the_first_rooms_that_use_the_budget_up_are_taken_and_each_are_allocated_once():
    asked = []

    class Counted:
        def allocate(self, rooms, curves, cost, limit):
            asked.append(rooms[0].step)
            return Uniform().allocate(rooms, curves, cost, limit)

    cost = Multilinear(terms=(Term(1.0, (Factor(0.0, {"a": 1}),)),), full={"a": 64})
    finer = [[Room("a", 64, step)] for step in (24, 8, 4, 2)]
    ladder = Ladder(rooms=[Room("a", 64, 32)], curves={}, cost=cost, allocator=Counted())
    found = filled_up(ladder, 0.63, finer)
    assert (found.rooms[0].step, found.widths(0.63)) == (8, {"a": 40})
    assert asked == [32, 24, 8, 8]


@pytest.mark.parametrize(("time", "taken"), [(0.75, True), (0.79, True), (0.85, False)])
def test_smaller_multiples_are_taken_where_less_is_lost_in_the_time_that_goes_with_the_budget(time, taken):
    """They were taken wherever they use more of the budget: a mesh of faces lost more, and took 0.84 of the time in place of 0.70."""
    cost = Multilinear(terms=(Term(1e8 / 64, (Factor(0.0, {"a": 1}),)),), full={"a": 64})
    steep = {"a": Curve((0, 32, 63), (2.0, 1.0, 0.1))}
    ladder = Ladder(rooms=[Room("a", 64, 32)], curves=steep, cost=cost, allocator=MarginalCost())
    found = best_grid(ladder, 0.7, [[Room("a", 64, 8)]], [lambda widths, _: 0.7, lambda widths, _: time], silent)
    assert found.widths(0.7) == {"a": 40 if taken else 32}


def test_smaller_multiples_in_which_as_much_is_lost_are_not_even_timed():
    room = [Room("a", 64, 16)]
    cost = Multilinear(terms=(Term(1e8 / 64, (Factor(0.0, {"a": 1}),)),), full={"a": 64})
    flat = Ladder(rooms=room, curves={"a": Curve((0, 63), (1.0, 1.0))}, cost=cost, allocator=MarginalCost())

    def never(widths, seconds):
        raise AssertionError

    assert best_grid(flat, 0.7, [[Room("a", 64, 4)]], [never], silent) is flat
