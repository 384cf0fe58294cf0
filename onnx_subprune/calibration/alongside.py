"""Work on chunks side by side, each in a thread of its own; results come in order.

NumPy and onnxruntime both let go of the interpreter, and a chunk a thread takes less time than many threads on one chunk. What is
computed from a chunk does not depend on the number of threads.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

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
    if threads == 1:
        yield from (work(*job) for job in jobs)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Result]] = deque()
        for job in jobs:
            waiting.append(pool.submit(work, *job))
            del job
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
