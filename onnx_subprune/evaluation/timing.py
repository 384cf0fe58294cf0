"""How long models take, measured in turns.

Where one thread does all, its own time counts: what other work the machine does meanwhile is no part of it.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from onnx_subprune._typing import Array
from onnx_subprune.runtime.session import Session

RESOLUTION = 1e-5
"""Seconds that a clock must tell apart."""


def latency(sessions: Sequence[Session], feeds: Mapping[str, Array], *, seconds: float = 1.0) -> tuple[float, ...]:
    """Return the median milliseconds of a run of each session; they take turns, so that drift of the machine hits all alike.

    seconds: about how long to measure, all together; at least five rounds are run (three where one takes longer than that), after one that is
    not counted.
    """
    return tuple(statistics.median(times) for times in zip(*_rounds(sessions, feeds, seconds), strict=True))


@dataclass(frozen=True, slots=True)
class Timing:
    """Median milliseconds of two models, and of their ratio over rounds that ran both back to back the quartiles, ascending.

    On a busy machine the ratios scatter less than a ratio of two latencies, because a disturbance that lasts longer than a round cancels.
    """

    before: float
    after: float
    ratios: tuple[float, float, float]

    @property
    def ratio(self) -> float:
        """The median ratio."""
        return self.ratios[1]


def together(first: Timing, second: Timing, weight: float) -> Timing:
    """Return the mean of two measurements of the same models, of which the second took `weight` times as long as the first."""

    def mean(one: float, other: float) -> float:
        return (one + weight * other) / (1.0 + weight)

    low, middle, high = (mean(*pair) for pair in zip(first.ratios, second.ratios, strict=True))
    return Timing(mean(first.before, second.before), mean(first.after, second.after), (low, middle, high))


def timing(before: Session, after: Session, feeds: Mapping[str, Array], *, seconds: float = 1.0) -> Timing:
    """Return how long both take, in turns; see `latency`."""
    rounds = _rounds((before, after), feeds, seconds)
    first, second = (statistics.median(times) for times in zip(*rounds, strict=True))
    low, middle, high = statistics.quantiles((b / a for a, b in rounds), n=4, method="inclusive")
    return Timing(first, second, (low, middle, high))


def latency_ratio(before: Session, after: Session, feeds: Mapping[str, Array], *, seconds: float = 1.0) -> float:
    """Return how long `after` takes in units of `before`; see `Timing`."""
    return timing(before, after, feeds, seconds=seconds).ratio


def _rounds(sessions: Sequence[Session], feeds: Mapping[str, Array], seconds: float) -> list[list[float]]:
    """Milliseconds of a run of each session, round by round; every other round goes backwards, so that no session is always first."""
    exact = time.get_clock_info("thread_time").resolution < RESOLUTION
    clock = time.thread_time if exact and all(session.alone for session in sessions) else time.perf_counter
    start = time.perf_counter()
    for session in sessions:
        session.run(feeds)
    first = (time.perf_counter() - start) * 1e3
    least = 5 if first < 1e3 * seconds else 3
    count = min(200, max(least, int(seconds * 1e3 / max(first, 1e-3))))
    rounds = []
    for number in range(count):
        step = -1 if number % 2 else 1
        rounds.append([_time(session, feeds, clock) for session in sessions[::step]][::step])
    return rounds


def _time(session: Session, feeds: Mapping[str, Array], clock: Callable[[], float]) -> float:
    start = clock()
    session.run(feeds)
    return (clock() - start) * 1e3
