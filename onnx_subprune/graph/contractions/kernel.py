"""How a consumer contracts its input: output = unfold(input) @ W + bias, one product a convolution group.

The unfolded input has a row for every output position of every sample and p = c * taps columns: c channels in a group,
each owning `taps` consecutive columns (the kernel's positions in row-major order, 1 for matrix products). W is
(groups, p, m), m output channels a group. Each kind is one module beside this one, and says how its weight becomes W and back:

    convolution     Conv, ConvTranspose
    product         MatMul with the weight on either side, Gemm
    einsum          Einsum: as MatMul, or with a matrix for each place of the axis before the channels
    recurrent       both weights of GRU, LSTM and RNN

https://onnx.ai/onnx/operators/ describes the operators.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np
import onnx
from numpy.typing import DTypeLike

from onnx_subprune._typing import Array, Float32, Int64, Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel(ABC):
    """A node that contracts an activation with a constant. groups: how many products it is, of rows of their own."""

    node: str
    groups: int = 1

    @property
    def spatial(self) -> int:
        """Number of spatial axes of a convolution; 0 for everything else."""
        return 0

    @property
    def taps(self) -> int:
        """Columns that a channel owns."""
        return 1

    @property
    def alpha(self) -> float:
        """What W holds more than the weight: a factor."""
        return 1.0

    @property
    def bias_scale(self) -> float:
        """What the node multiplies its bias with."""
        return 1.0

    @property
    def bias_slot(self) -> int | None:
        """The input that takes a bias; None where the operator has none."""
        return None

    @property
    def bias_by_row(self) -> bool:
        """True if a bias of one number may belong to a row in place of a channel."""
        return False

    @property
    def input_axis(self) -> int:
        """The input's axis that is contracted."""
        return -1

    @property
    def output_axis(self) -> int:
        """The output's channel axis."""
        return -1

    @property
    def alike(self) -> bool:
        """True if all groups have the same channels: those of one axis."""
        return False

    @property
    def rows_are_positions(self) -> bool:
        """True if each position of the input, all axes but the last, is a row: then a mask of positions is one of rows."""
        return False

    def wide(self, columns: int) -> bool:
        """Return whether this is a product with so many columns that copies of its weights count."""
        return False

    @abstractmethod
    def to_matrix(self, weight: Array) -> Weights:
        """Return `weight` as W, (groups, p, m) float64, `alpha` included; of a wide product a view, float32 if that is what it has."""

    @abstractmethod
    def from_matrix(self, matrix: Weights, dtype: DTypeLike, weight_shape: Sequence[int]) -> Array:
        """Return the weight of `weight_shape` whose matrix is `matrix`, cast to `dtype`; undoes `to_matrix`."""

    def by_channel(self, tensor: Array, axis: int) -> Float32:
        """Return `tensor`, an input or output whose channels lie on `axis`, as (groups, channels, n) float32; a view where possible."""
        if axis == -1 and tensor.ndim > 2:  # channels last: keep the view
            return tensor.astype(np.float32, copy=False).reshape(-1, tensor.shape[-1]).T[None]
        return grouped(tensor, axis, self.groups)

    def columns_of(self, rows: Int64) -> Int64:
        """Return the columns, counted over all groups, that these places of the input axis own, with one more axis flattened into the last."""
        return np.asarray((rows[..., None] * self.taps + np.arange(self.taps)).reshape(*rows.shape[:-1], -1))

    def macs(self, input_shape: Sequence[int], output_shape: Sequence[int]) -> int:
        """Return the multiply-accumulates of one run between these shapes; the batch and taps on padding count."""
        channels, made = input_shape[self.input_axis], output_shape[self.output_axis]
        return prod(output_shape) // max(1, made) * channels * made * self.taps // self.groups


class Reader(Protocol):
    """How a kind is found: its kernel, from a node, the shape of its weight, and the input that this is; None if it is not of this kind."""

    def __call__(self, node: onnx.NodeProto, weight_shape: tuple[int, ...], weight_slot: int) -> Kernel | None:
        """Return the kernel. Raises ValueError for a node of this kind that contracts nothing."""


def label_of(node: onnx.NodeProto) -> str:
    """Return what messages call a node: its name, or its first output's."""
    return node.name or next(iter(node.output), "")


def grouped(tensor: Array, axis: int, groups: int) -> Float32:
    """Return `tensor` as (groups, channels, n) float32, where the channels of all groups lie one behind the other on `axis`."""
    moved = np.moveaxis(tensor.astype(np.float32, copy=False), axis, 0)
    return moved.reshape(groups, moved.shape[0] // groups, -1)
