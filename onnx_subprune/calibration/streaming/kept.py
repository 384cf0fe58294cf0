"""What is left of channel groups in a model that still runs, and the original that it is compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnx_subprune._typing import Array
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.network import Network

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Original:
    """rows: what is left of the outputs of weights, on their own axis.

    left: of tensors that are smaller in the pruned model. places: the position here for each position there; empty where they are the same.
    """

    network: Network
    left: Mapping[str, Left] = field(default_factory=dict)
    places: tuple[int, ...] = ()
    rows: Mapping[Use, NDArray[np.int64]] = field(default_factory=dict)

    def place(self, position: int) -> int:
        """Return where the original is when the pruned model is at `position`."""
        return self.places[position] if self.places else position
