"""What a cost is at some widths, and along those of one group, is the same."""

import numpy as np
import pytest

from onnx_subprune.allocation.descent import State
from onnx_subprune.allocation.multilinear import Factor, Grid, Multilinear, Tabulated, Tally, Term
from onnx_subprune.allocation.widths import Curve, Room

FULL = {"a": 24, "b": 16, "c": 7}
FACTORS = (
    Factor(0.0, {"a": 1}),
    Factor(3.0, {"a": 2, "b": 9}),
    Factor(2.0, {"b": 1}, block=8),
    Factor(0.0, {"b": 1}, block=8, extra=2.5, partial=1.5),
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
    factor = Factor(0.0, {"a": 1}, block=8, extra=2.0, partial=1.5)
    assert [factor.at({"a": width}) for width in (0, 3, 7, 8, 9)] == [0.0, 6.5, 10.0, 10.0, 18.0]


@pytest.mark.parametrize("name", FULL)
def test_changes_are_differences_of_costs(name):
    options = np.arange(FULL[name] + 1)
    assert COST.changes(FULL, name, options) == pytest.approx(
        [COST({**FULL, name: int(width)}) - COST({}) for width in options]
    )


def test_a_tally_is_the_cost_from_scratch_to_the_last_bit():
    random, widths = np.random.default_rng(0), dict(FULL)
    tally = Tally(COST, {})
    for _ in range(200):
        name = str(random.choice([*FULL]))
        width = int(random.integers(0, FULL[name] + 1))
        assert tally.total == COST(widths)
        assert tally.after(name, width) == (COST({**widths, name: width}), COST.change(widths, name, width))
        tally.move(name, width)
        widths[name] = width


def test_a_tally_evaluates_the_terms_of_the_group_that_changes():
    asked = []

    class Counted(Term):
        def at(self, widths):
            asked.append(self.coefficient)
            return super().at(widths)

    terms = (Counted(1.0, (FACTORS[0],)), Counted(2.0, (FACTORS[2],)), Counted(3.0, FACTORS[:2]))
    state = State(
        [Room(name, FULL[name]) for name in FULL], dict.fromkeys(FULL, Curve((), ())), Multilinear(terms, FULL)
    )
    asked.clear()
    state.move(0, 3)
    assert state.spent == state.spent == Multilinear(terms, FULL)({**FULL, "a": 4})
    assert asked[:2] == [1.0, 3.0]
    assert len(asked) == 2 + len(terms)


def test_equal_terms_are_one():
    steps = (
        *[Term(0.3, FACTORS[:2])] * 20,
        Tabulated(2.0, FACTORS[:2], GRID),
        Tabulated(0.5, FACTORS[:2], GRID),
        Tabulated(0.5, FACTORS[:2], Grid((4.0,), (4.0,), ((1.0,),))),
    )
    cost = Multilinear(terms=steps, full=FULL)
    assert len(cost.terms) == 3
    for widths in (FULL, {"a": 3, "b": 9, "c": 0}):
        assert cost(widths) == pytest.approx(sum(term.at(widths) for term in steps))
