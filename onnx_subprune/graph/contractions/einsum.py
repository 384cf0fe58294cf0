"""Einsum with a constant matrix: a matrix product where the last axis of the activation is summed and its place is taken by the new one.

...d,dm->...m       input @ W          ...d,md->...m       input @ W'          (either operand first; letters may be any)
...gd,gdm->...gm    input @ W[g]       ...gd,gmd->...gm    input @ W[g]'       a matrix for each place of the axis before, which stays
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike
from onnx import NodeProto

from onnx_subprune._typing import Array, Float32, Int64, Weights
from onnx_subprune.graph.contractions.kernel import Kernel, label_of
from onnx_subprune.graph.contractions.product import Product
from onnx_subprune.graph.operators import attribute, key_of


@dataclass(frozen=True, slots=True)
class MatrixProduct:
    """An Einsum that is one: its weight is input `weight`, (d, m), or, `transposed`, (m, d); with g in front where it is `grouped`."""

    weight: int
    transposed: bool
    grouped: bool = False

    @property
    def data(self) -> int:
        """The input that is the activation."""
        return 1 - self.weight


def matrix_product(node: NodeProto, weight: int) -> MatrixProduct | None:
    """Return how input `weight` of an Einsum, a matrix or a stack of them, multiplies the last axis of the other input; None if it does something else."""
    equation = attribute(node, "equation", b"")
    assert isinstance(equation, bytes)
    left, arrow, result = equation.decode().replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow or len(terms) != 2 or weight not in (0, 1):
        return None
    matrix, data = terms[weight], terms[1 - weight]
    letters = data.replace("...", "")
    if len(matrix) not in (2, 3) or "." in matrix or len(set(letters)) < len(letters) or not letters:
        return None
    grouped = len(matrix) == 3
    if grouped and (len(letters) < 2 or not data.endswith(letters[-2:]) or matrix[0] != letters[-2]):
        return None
    summed, matrix = data[-1], matrix[int(grouped) :]
    made = matrix.replace(summed, "", 1)
    if summed not in matrix or len(made) != 1 or made in data or result != data[:-1] + made:
        return None
    return MatrixProduct(weight=weight, transposed=matrix[0] != summed, grouped=grouped)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack(Kernel):
    """A matrix for each place of the axis before the channels: W[g] = weight[g], or, `transposed`, weight[g]'. units: how many channels each reads."""

    transposed: bool
    units: int

    @property
    def alike(self) -> bool:
        """True: see `Kernel`."""
        return True

    def to_matrix(self, weight: Array) -> Weights:
        """Return the weight as W; see `Kernel`."""
        wide = weight.astype(np.float64)
        return np.ascontiguousarray(wide.transpose(0, 2, 1)) if self.transposed else wide

    def from_matrix(self, matrix: Weights, dtype: DTypeLike, weight_shape: Sequence[int]) -> Array:
        """Return the weight; see `Kernel`."""
        plain = matrix.transpose(0, 2, 1) if self.transposed else matrix
        return np.ascontiguousarray(plain).reshape(tuple(weight_shape)).astype(dtype)

    def by_channel(self, tensor: Array, axis: int) -> Float32:
        """Return `tensor`, (..., groups, channels), as (groups, channels, n)."""
        plain = tensor.astype(np.float32, copy=False)
        return np.ascontiguousarray(plain.reshape(-1, *plain.shape[-2:]).transpose(1, 2, 0))

    def columns_of(self, rows: Int64) -> Int64:
        """Return the columns; see `Kernel`."""
        return np.asarray((rows[..., None] + self.units * np.arange(self.groups)).reshape(*rows.shape[:-1], -1))


def read(node: NodeProto, weight_shape: tuple[int, ...], weight_slot: int) -> Kernel | None:
    """Return the kernel of an Einsum with a matrix or a stack of them; see `kernel.Reader`."""
    rank = len(weight_shape)
    product = matrix_product(node, weight_slot) if key_of(node) == "Einsum" and rank in (2, 3) else None
    if product is None or product.grouped != (rank == 3):
        return None
    units = weight_shape[2 if product.transposed else 1] if product.grouped else 0
    if not units:
        return Product(node=label_of(node), transposed=product.transposed)
    return Stack(node=label_of(node), transposed=product.transposed, groups=weight_shape[0], units=units)
