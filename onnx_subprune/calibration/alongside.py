"""Work on chunks in threads while the next chunks are being made; results come in order.

The models run in the calling thread and the products of earlier chunks are formed next to that: NumPy and onnxruntime both let go of
the interpreter. What is computed from a chunk does not depend on the number of threads.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

Result = TypeVar("Result")
Job = TypeVarTuple("Job")


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
