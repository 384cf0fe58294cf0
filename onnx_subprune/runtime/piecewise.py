"""Work on large arrays some samples at a time: what comes out in between then stays in the caches."""

from collections.abc import Callable

import numpy as np

from onnx_subprune._typing import Array
from onnx_subprune.runtime.threads import alongside

PIECE = 1 << 20
"""Bytes of all arrays together that are worked on at a time."""


def piecewise(work: Callable[..., Array], *arrays: Array, threads: int = 1) -> Array:
    """Return `work(*arrays)`, where what it returns of some samples (places on the first axis) depends on these alone.

    Arrays without the same rank and the same first axis are worked on as they are. threads: 2 or more share the work.
    """
    samples = len(arrays[0]) if arrays[0].ndim else 0
    step = samples * PIECE // max(1, sum(array.nbytes for array in arrays))
    if step >= samples or any(array.shape[:1] != (samples,) or array.ndim != arrays[0].ndim for array in arrays):
        return work(*arrays)
    step = max(1, step)
    first = work(*(array[:step] for array in arrays))
    if any(np.may_share_memory(first, array) for array in arrays):  # nothing was computed
        return work(*arrays)
    whole = np.empty((samples, *first.shape[1:]), first.dtype)
    whole[:step] = first

    def worked(start: int) -> None:
        whole[start : start + step] = work(*(array[start : start + step] for array in arrays))

    for _ in alongside(worked, ((start,) for start in range(step, samples, step)), threads):
        pass
    return whole
