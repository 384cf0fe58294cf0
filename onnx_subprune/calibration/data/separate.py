"""Does a model treat samples one by one? Then the feeds of several runs may be joined to one, and one may be cut in two.

Time on the first axis looks like samples on it; a recurrence tells them apart.
"""

from collections.abc import Mapping

import numpy as np

from onnx_subprune._typing import Array
from onnx_subprune.errors import SubpruneError
from onnx_subprune.runtime.session import Runnable

Feeds = Mapping[str, Array]
TOLERANCE = 1e-3
"""Largest difference between outputs that are the same but for rounding, relative to the largest number."""


def separate(model: Runnable, first: Feeds, second: Feeds | None, constants: Feeds) -> bool:
    """True if both feeds at once give what they give one after the other; without a second one, the first is cut in two.

    The first axis of all inputs but `constants` counts what may be samples.
    """
    if second is None:
        count = len(next(iter(first.values())))
        if count < 2:
            return True
        halves = slice(0, count // 2), slice(count // 2, None)
        first, second = ({name: array[half] for name, array in first.items()} for half in halves)
    both = {name: np.concatenate([first[name], second[name]]) for name in first}
    session = model.session(threads=1)
    try:
        one, other, whole = (session.run({**feeds, **constants}) for feeds in (first, second, both))
    except SubpruneError:
        return False
    return all(_equal(one[name], other[name], whole[name]) for name in whole)


def _equal(one: Array, other: Array, whole: Array) -> bool:
    if not whole.ndim or (len(one) + len(other), *one.shape[1:]) != whole.shape or one.shape[1:] != other.shape[1:]:
        return False
    apart = np.concatenate([one, other])
    if whole.dtype.kind != "f":
        return bool(np.mean(apart == whole) > 1 - TOLERANCE) if whole.size else True
    with np.errstate(invalid="ignore"):
        limit = TOLERANCE * np.max(np.abs(whole), initial=0.0)
    return bool(np.allclose(apart, whole, rtol=0, atol=limit, equal_nan=True))
