"""Grids of times of layers, on machines that do other work meanwhile."""

import numpy as np
import pytest

from onnx_subprune.runtime.profiler.grids import measured

SHAPE = {"op": "Conv", "rows": [2], "map": [4, 4], "kernel": [3, 3], "groups": 1, "read": 128, "written": 128}
SIZES = {"reads": [1, 8, 16, 64, 128], "writes": [1, 8, 16, 32, 64, 128]}


class Machine:
    """Takes a thousandth of a millisecond a product of channels, longer at the places of `disturbed`, so often; and a reorder so long a channel."""

    def __init__(self, disturbed=(), times=0, reorder=0.0):
        self.disturbed, self.times, self.reorder, self.runs, self.spent = disturbed, times, reorder, 0, 0.0

    def profiled(self, text, feeds, *, seconds, most):
        self.runs += 1
        self.spent += 1.0
        events = [{"name": "moved", "op": "ReorderInput", "ms": 16 * self.reorder, "inputs": [[2, 16, 4, 4]]}]
        for row, read in enumerate(SIZES["reads"]):
            for column, written in enumerate(SIZES["writes"]):
                slow = 5.0 if self.runs <= self.times and (row, column) in self.disturbed else 1.0
                events.append({"name": f"layer {row} {column}", "op": "Conv", "ms": slow * read * written / 1e3})
        return events


def found(machine, most=np.inf):
    grid = measured(SHAPE, 16, machine, 0.0, 0.0, most)
    assert {side: grid[side] for side in SIZES} == SIZES
    return np.array(grid["ms"])


LINEAR = np.outer(SIZES["reads"], SIZES["writes"]) / 1e3


def test_a_quiet_machine_times_once():
    machine = Machine()
    assert found(machine) == pytest.approx(LINEAR)
    assert machine.runs == 1


@pytest.mark.parametrize("place", [(4, 5), (3, 4), (2, 3)])
@pytest.mark.parametrize("times", [1, 2])
def test_what_other_work_made_longer_is_timed_again_and_bounded_by_fewer_channels(place, times):
    machine = Machine([place], times)
    assert found(machine) == pytest.approx(LINEAR)
    assert machine.runs == 2


@pytest.mark.parametrize(("most", "runs"), [(0.5, 1), (1.9, 1), (2.0, 2)])
def test_nothing_is_timed_again_where_that_takes_more_than_is_left_and_what_is_bounded_by_fewer_channels_stays(
    most, runs
):
    machine = Machine([(4, 5)], 1)
    assert found(machine, most) == pytest.approx(LINEAR)
    assert machine.runs == runs


def test_fewer_channels_than_a_block_are_put_into_another_layout_first():
    ours = found(Machine(reorder=0.01))
    assert ours[:2] - LINEAR[:2] == pytest.approx(0.01 * np.outer([1, 8], np.ones(6)))
    assert ours[2:] == pytest.approx(LINEAR[2:])
