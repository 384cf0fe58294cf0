"""What is left of a channel group in a model that still runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_subprune._typing import Array
from onnx_subprune.graph.channels import Use

Left = tuple[int, NDArray[np.int64]]
"""An axis, and the positions on it that are left."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cut:
    """Where the channels of a group lie, and which of them stay: in activations, and in constants as their uses see them."""

    tensors: Mapping[str, Left]
    constants: Mapping[Use, Left]


def chosen(value: Array, positions: NDArray[np.int64] | None, axis: int) -> Array:
    """Return these positions of an array, which may have been cut to them already; None for all."""
    if positions is None or value.shape[axis] == len(positions):
        return value
    return value.take(positions, axis=axis)


def taken(value: Array, cuts: Sequence[Left]) -> Array:
    """Return what is left of an array."""
    for axis, positions in cuts:
        value = value.take(positions, axis=axis)
    return value
