"""Samples that nothing is fitted to and nothing chosen by: what a result is judged on.

Fits look better on what they were fitted to, the more so the fewer samples there are. So some are held out: one drawn from each of as many equal
runs of the data, so that they are spread over it, whatever its order; the draw depends on the numbers alone.
"""

from math import inf

import numpy as np

from onnx_subprune._typing import Int64
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.errors import OptionError

SHARE, LEAST, MOST = 8, 16, 512
"""An eighth is held out, at least 16 and at most 512 ..."""
SCARCE, NONE = 4, 8
"""... but never more than a quarter unasked, and nothing of fewer than 8: two samples would be left to judge on, six to fit to."""

Holdout = int | float | None
"""A number of samples, a fraction of them, or None for an eighth."""


def count_of(samples: int, holdout: Holdout = None) -> int:
    """Return how many of `samples` are held out; OptionError if none would be left, or `holdout` is neither a number nor a fraction."""
    if holdout is None:
        return 0 if samples < NONE else min(MOST, max(samples // SHARE, min(LEAST, samples // SCARCE)))
    if not 0 <= holdout < inf or (holdout >= 1 and holdout != int(holdout)):
        raise OptionError(f"--holdout {holdout}: give a number of samples, a fraction below 1, or 0 for none")
    count = int(holdout) if holdout >= 1 else max(1, round(samples * holdout)) if holdout > 0 else 0
    if count >= samples:
        raise OptionError(f"--holdout {holdout}: of {samples} samples none would be left to fit to")
    return count


def split(data: Calibration, holdout: Holdout = None) -> tuple[Int64, Int64]:
    """Return the places of the samples to fit to and of those held out, ascending.

    Where the model insists on a batch, whole batches of samples are held out; unasked none, where one is more than a quarter of the samples.
    """
    samples, unit = data.samples, data.fixed or 1
    count = count_of(samples, holdout)
    if count and unit > 1:
        count = -(-count // unit) * unit if holdout is not None else max(1, round(count / unit)) * unit
        if holdout is None and SCARCE * count > samples:
            count = 0
        if count >= samples:
            raise OptionError(
                f"--holdout {holdout}: batches of {unit} are held out whole, and none of {samples} samples is left"
            )
    held = spread(samples, count)
    return np.setdiff1d(np.arange(samples, dtype=np.int64), held), held


def spread(samples: int, count: int) -> Int64:
    """Return `count` places below `samples`, ascending: one drawn from each of `count` equal runs."""
    edges = np.arange(count + 1, dtype=np.int64) * samples // max(count, 1)
    return np.random.default_rng(0).integers(edges[:-1], edges[1:]) if count else edges[:0]
