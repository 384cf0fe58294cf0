"""A convolution whose weights are zero for some input channels reads the others alone: masking at nearly the price of slicing."""

import numpy as np
from numpy.typing import NDArray

from onnx_subprune._typing import Array

BLOCK = 16
"""onnxruntime is fastest where channels are a multiple of this: some are read for nothing."""
SPARED = 1 / 4
"""Gathering pays off from this share of the channels on."""


def channels_read(op: str, weight: Array, group: object) -> NDArray[np.int64] | None:
    """Return the input channels, sorted, that a convolution with `weight` (m, c, *kernel) should gather; None where it had better read all."""
    if op != "Conv" or group != 1 or weight.ndim < 3:
        return None
    alive = np.any(weight, axis=(0, *range(2, weight.ndim)))
    needed = -(-max(int(alive.sum()), 1) // BLOCK) * BLOCK
    if needed > (1 - SPARED) * len(alive):
        return None
    order = np.argsort(~alive, kind="stable")  # the living first
    return np.sort(order[:needed]).astype(np.int64)
