"""What a cost is at some widths, and along those of one group, is the same."""

import numpy as np
import pytest

from onnx_subprune.allocation.descent import State
from onnx_subprune.allocation.multilinear import Factor, Grid, Multilinear, Tabulated, Term
from onnx_subprune.allocation.widths import Curve, Room

FULL = {"a": 24, "b": 16, "c": 7}
FACTORS = (
    Factor(0.0, {"a": 1}),
    Factor(3.0, {"a": 2, "b": 9}),
    Factor(2.0, {"b": 1}, block=8),
    Factor(0.0, {"b": 1}, block=8, extra=2.5, partial=True),
    Factor(5.0, {}, block=4, extra=1.0),
    Factor(0.0, {"c": 1}, block=16, extra=0.75),
)
GRID = Grid((4.0, 8.0, 24.0), (4.0, 16.0), ((1.0, 2.0), (3.0, 4.5), (7.0, 8.25)))
COST = Multilinear(
    terms=(
        Term(0.3, FACTORS[:3]),
        Term(1.7, FACTORS[3:]),
        Tabulated(2.0, (FACTORS[0], FACTORS[2], FACTORS[5]), GRID),
        Term(4.0, (FACTORS[4],)),
    ),
    full=FULL,
)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("name", FULL)
def test_a_size_along_a_group_is_the_size_at_each_width(factor, name):
    widths = np.arange(FULL[name] + 1)
    along = np.broadcast_to(factor.along(FULL, name, np.asarray(widths - FULL[name], np.float64)), widths.shape)
    assert along.tolist() == [factor.at({**FULL, name: int(width)}) for width in widths]


def test_a_size_of_blocks_is_rounded_up_and_counts_for_what_goes_along_with_it():
    factor = Factor(0.0, {"a": 1}, block=8, extra=2.0, partial=True)
    assert [factor.at({"a": width}) for width in (0, 3, 8, 9)] == [0.0, 5.0, 10.0, 18.0]


@pytest.mark.parametrize("name", FULL)
def test_changes_are_differences_of_costs(name):
    options = np.arange(FULL[name] + 1)
    assert COST.changes(FULL, name, options) == pytest.approx(
        [COST({**FULL, name: int(width)}) - COST({}) for width in options]
    )


def test_what_is_spent_follows_every_move_and_is_computed_once():
    asked = []

    class Counted(Multilinear):
        def __call__(self, widths):
            asked.append(dict(widths))
            return super().__call__(widths)

    rooms = [Room(name, width) for name, width in FULL.items()]
    curves = {name: Curve((1, width), (1.0, 0.0)) for name, width in FULL.items()}
    state = State(rooms, curves, Counted(COST.terms, FULL))
    assert state.spent == state.spent == COST({})
    state.move(1, 3)
    assert state.spent == state.spent == COST({**FULL, "b": 4})
    assert len(asked) == 2
