"""A budget of multiply-accumulates that its bound of work leaves unused: where less time is measured than is counted, more may stay.

Work is counted by what kernels do, of any network; what lies beside the layers takes less in some than it is counted for. Then widths save more time than
they have to, and channels go for nothing: a network of dilated convolutions was left 43 % of its multiply-accumulates where 70 were asked for, and took 58 %
of its time.
"""

from dataclasses import replace

from onnx_subprune.allocation import BlockAware
from onnx_subprune.pruning.budgets.ladder import CLOSE, Ladder
from onnx_subprune.pruning.budgets.latency_search import Stopwatch
from onnx_subprune.runtime.progress import Watch

WORTH = 1.5e7
"""Multiply-accumulates of a run from which on times tell enough: those of smaller ones scatter, and equal settings shall give equal models."""
LOOK = 0.5
"""Seconds that widths are timed for."""
SURELY, NEARLY = 0.03, 0.02
"""Shares of the time: less is measured by so much at least where more may stay, and it is more by no more than so much then."""


def used_up(ladder: Ladder, fraction: float, ratio: Stopwatch, watch: Watch) -> Ladder:
    """Return the ladder, or one with more of the multiply-accumulates at `fraction` that takes the time which goes with these.

    ratio: measures the time of widths, in units of the original's.
    """
    aware = ladder.allocator
    if not isinstance(aware, BlockAware) or ladder.loses_nothing(fraction):
        return ladder
    widths = ladder.widths(fraction)
    used = ladder.fraction(widths)
    if used >= CLOSE * fraction or ladder.cost({}) < WORTH:
        return ladder
    goal = aware.allowed(fraction) / (aware.work({}) + aware.beside)
    watch("timing widths", 0, 1)
    measured = ratio(widths, LOOK)
    if measured > goal - SURELY:
        return ladder
    saves = (1.0 - measured) / (1.0 - goal)
    for part in (1.0, 0.5):  # of what seems to be too much
        other = replace(ladder, allocator=replace(aware, saves=saves**part))
        found = other.widths(fraction)
        if ladder.fraction(found) > used and ratio(found, LOOK) <= goal + NEARLY:
            return other
    return ladder
