"""The allocations for every fraction of a cost."""

from onnx_subprune.allocation.multilinear import Factor, Multilinear, Term
from onnx_subprune.allocation.uniform import Uniform
from onnx_subprune.allocation.widths import Room
from onnx_subprune.pruning.budgets.ladder import Ladder, filled_up


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
