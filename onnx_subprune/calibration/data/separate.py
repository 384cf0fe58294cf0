"""Does a model treat samples one by one? Then the feeds of several runs may be joined to one, and one may be cut in two.

Time on the first axis looks like samples on it; a recurrence tells them apart.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from onnx_subprune._typing import Array
from onnx_subprune.errors import SubpruneError
from onnx_subprune.runtime.session import Runnable

Feeds = Mapping[str, Array]
TOLERANCE = 1e-3
"""Largest difference between outputs that are the same but for rounding, relative to the largest number."""


def separate(model: Runnable, first: Feeds, second: Feeds | None, constants: Feeds) -> bool:
    """True if both feeds at once give what they give one after the other, and one place alone is a run; without a second one, the first is cut in two.

    The first axis of all inputs but `constants` counts what may be samples. Where a model folds places together, as the mirrored copies of an image, no
    place is a sample.
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
        if len(next(iter(first.values()))) > 1:
            session.run({name: array[:1] for name, array in first.items()} | dict(constants))
    except SubpruneError:
        return False
    return all(_equal(one[name], other[name], whole[name]) for name in whole)


def _equal(one: Array, other: Array, whole: Array) -> bool:
    if not whole.ndim or (len(one) + len(other), *one.shape[1:]) != whole.shape or one.shape[1:] != other.shape[1:]:
        return False
    return _alike(whole, np.concatenate([one, other]))


def independent(model: Runnable, feeds: Feeds, axis: int, constants: Feeds) -> bool | None:
    """Does each place on `axis` of all inputs have outputs of its own, which the others do not change? None where that does not show.

    feeds: of a run, without those of `constants`.
    """
    sizes = {array.shape[axis] for array in feeds.values() if array.ndim > axis}
    if len(sizes) != 1 or any(array.ndim <= axis for array in feeds.values()) or (count := sizes.pop()) < 2:
        return None
    places, half = np.arange(count), count // 2
    others = (
        np.where(places < half, places, places % half),
        np.where(places < half, half + places % (count - half), places),
    )
    kept = (slice(0, half), slice(half, count))
    session = model.session(threads=1)
    try:
        before = session.run({**feeds, **constants})
        runs = [
            session.run({name: np.take(a, order, axis) for name, a in feeds.items()} | dict(constants))
            for order in others
        ]
    except SubpruneError:
        return None
    same = [name for name in before if all(run[name].shape == before[name].shape for run in runs)]
    if not same:
        return None
    return all(_keeps(before[name], [run[name] for run in runs], count, kept) for name in same)


def counted(model: Runnable, feeds: Feeds, axis: int, constants: Feeds) -> bool:
    """True if some output of a run has as many places as `axis` of the inputs on one of its axes, or so many for each."""
    count = next(iter(feeds.values())).shape[axis]
    made = model.session(threads=1).run({**feeds, **constants})
    return any(size and size % count == 0 for array in made.values() for size in array.shape)


def _keeps(before: Array, runs: Sequence[Array], count: int, kept: Sequence[slice]) -> bool:
    """True if on some axis of an output the parts `kept` are in the runs what they were before; an axis may have several of each place."""
    for axis, size in enumerate(before.shape):
        if not size or size % count:
            continue
        ahead, behind = before.shape[:axis], before.shape[axis + 1 :]
        for split, at in (((count, size // count), axis), ((size // count, count), axis + 1)):
            one, *others = (np.moveaxis(array.reshape(*ahead, *split, *behind), at, 0) for array in (before, *runs))
            if all(_alike(one[part], other[part]) for other, part in zip(others, kept, strict=True)):
                return True
    return False


def _alike(one: Array, other: Array) -> bool:
    if one.dtype.kind != "f":
        return not one.size or bool(np.mean(one == other) > 1 - TOLERANCE)
    limit = TOLERANCE * np.max(np.abs(one), initial=0.0, where=np.isfinite(one))
    return bool(np.allclose(one, other, rtol=0, atol=limit, equal_nan=True))
