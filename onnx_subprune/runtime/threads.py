"""Work on chunks side by side, each in a thread of its own; results come in order.

NumPy and onnxruntime both let go of the interpreter, and a chunk a thread takes less time than many threads on one chunk. What is
computed from a chunk does not depend on the number of threads.
"""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from threading import local
from typing import Protocol, TypeVar, TypeVarTuple

Result = TypeVar("Result")
Job = TypeVarTuple("Job")


def cores_of(threads: int | None) -> int:
    """Return how many threads there are in all; None stands for as many as there are cores."""
    return threads or os.cpu_count() or 1


def threads_each(threads: int | None, jobs: int) -> int:
    """Return how many threads are left for each of so many jobs side by side."""
    return max(1, cores_of(threads) // max(jobs, 1))


def alongside(work: Callable[[*Job], Result], jobs: Iterable[tuple[*Job]], threads: int) -> Iterator[Result]:
    """Yield `work(*job)` for every job, in order; as many jobs as there are `threads` wait or are worked on at a time."""
    if threads == 1 or getattr(_HERE, "working", False):
        yield from (work(*job) for job in jobs)
        return
    waiting: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            waiting.append(_pool(threads).submit(work, *job))
            del job
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        wait(waiting)


class Later(Protocol):
    """Takes work that is done in the order in which it comes."""

    def __call__(self, work: Callable[[*Job], None], *job: *Job) -> None:
        """Do `work(*job)`, now or later."""


def _now(work: Callable[[*Job], None], *job: *Job) -> None:
    work(*job)


@contextlib.contextmanager
def aside(threads: int) -> Iterator[Later]:
    """Let work be done one after the other in a thread beside this one, if there are two or more; all is done at the end."""
    if threads < 2:
        yield _now
        return
    with ThreadPoolExecutor(1) as pool:
        jobs = list[Future[None]]()

        def later(work: Callable[[*Job], None], *job: *Job) -> None:
            jobs.append(pool.submit(work, *job))

        try:
            yield later
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        for item in jobs:
            item.result()


_HERE = local()
"""Knows whether a thread belongs to a pool: what that does side by side would wait for itself."""


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """The threads, kept: a walk works on some hundred rows of chunks."""
    return ThreadPoolExecutor(threads, initializer=lambda: setattr(_HERE, "working", True))
