"""A budget of multiply-accumulates of which the bound of work leaves much unused, where times are measured."""

import pytest

from onnx_subprune.allocation import BlockAware, Curve, Factor, MarginalCost, Multilinear, Room, Term
from onnx_subprune.pruning.budgets.ladder import Ladder
from onnx_subprune.pruning.budgets.unused import NEARLY, used_up
from onnx_subprune.runtime.progress import silent


def ladder_of(macs: float = 1e9, beside: float = 1.5) -> Ladder:
    """Two groups; what lies beside their layers is counted for more than these are, so that they have to go for it."""
    terms = [Term(0.5 / 64, (Factor(0.0, {name: 1}),)) for name in "ab"]
    full = {"a": 64, "b": 64}
    cost = Multilinear(terms=tuple(Term(macs * term.coefficient, term.factors) for term in terms), full=full)
    work = Multilinear(terms=(*terms, Term(beside, ())), full=full)
    curves = {"a": Curve((0, 56), (1.0, 0.8)), "b": Curve((0, 56), (2.0, 1.6))}
    rooms = [Room(name, 64, 8) for name in "ab"]
    return Ladder(rooms=rooms, curves=curves, cost=cost, allocator=BlockAware(MarginalCost(), work))


def timed(ladder: Ladder, constant: float) -> tuple:
    """What measures widths in a network of whose time the share `constant` does not change, and what it was asked."""
    asked = []

    def ratio(widths, seconds):
        asked.append(dict(widths))
        return constant + (1.0 - constant) * ladder.fraction(widths)

    return ratio, asked


def test_more_stays_where_less_time_is_measured_than_is_counted():
    ladder = ladder_of()
    before = ladder.fraction(ladder.widths(0.7))
    ratio, asked = timed(ladder, 0.05)
    found = used_up(ladder, 0.7, ratio, silent)
    assert before < 0.65
    assert before < found.fraction(found.widths(0.7)) <= 0.7
    assert ratio(found.widths(0.7), 0.0) <= 1.0 - 0.94 * 0.3 + NEARLY
    assert 2 <= len(asked) <= 4


@pytest.mark.parametrize(
    ("ladder", "constant"),
    [
        (ladder_of(), 0.6),  # as slow as it is counted
        (ladder_of(macs=1e6), 0.05),  # too small to be timed
        (ladder_of(beside=0.0), 0.05),  # used up already
    ],
)
def test_it_stays_as_it_is_else(ladder, constant):
    ratio, asked = timed(ladder, constant)
    assert used_up(ladder, 0.7, ratio, silent) is ladder
    assert len(asked) <= 1


def test_what_turns_out_to_be_slower_is_not_taken():
    ladder = ladder_of()
    first = ladder.widths(0.7)
    assert used_up(ladder, 0.7, lambda widths, _: 0.5 if widths == first else 0.9, silent) is ladder
