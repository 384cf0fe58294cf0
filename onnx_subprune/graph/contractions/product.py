"""Products with a constant matrix.

MatMul          input @ weight                       W = weight
Gemm            alpha A' B' + beta C                 W = alpha * B (its transpose with transB)
MatMul, left    weight @ input                       W = weight', contracted over the input's second-last axis
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import DTypeLike

from onnx_subprune._typing import Array, Float32, Weights
from onnx_subprune.graph.contractions.kernel import Kernel, grouped, label_of
from onnx_subprune.graph.operators import attributes, key_of

WIDE = 4096
"""Columns from which a matrix product counts as wide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Product(Kernel):
    """MatMul with the weight on the right, (p, m), or an Einsum that is the same; `transposed`: (m, p)."""

    transposed: bool = False

    @property
    def rows_are_positions(self) -> bool:
        """True: see `Kernel`."""
        return True

    def wide(self, columns: int) -> bool:
        """Return whether there are so many columns that copies of the weights count."""
        return columns >= WIDE

    def to_matrix(self, weight: Array) -> Weights:
        """Return the weight as W; see `Kernel`."""
        if self.wide(weight.shape[int(self.transposed)]) and self.alpha == 1.0 and weight.dtype == np.float32:
            plain = weight.astype(np.float32, copy=False)
            return np.asarray(plain.T if self.transposed else plain)[None]
        wide = weight.astype(np.float64)
        return np.ascontiguousarray(wide.T if self.transposed else wide)[None] * self.alpha

    def from_matrix(self, matrix: Weights, dtype: DTypeLike, weight_shape: Sequence[int]) -> Array:
        """Return the weight; see `Kernel`."""
        plain = matrix[0].T if self.transposed else matrix[0]
        plain = plain if self.alpha == 1.0 else plain / self.alpha
        return np.ascontiguousarray(plain).reshape(tuple(weight_shape)).astype(dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemm(Product):
    """Gemm. transposed_input: transA. alpha; bias_scale: beta."""

    transposed_input: bool = False
    alpha: float = 1.0
    bias_scale: float = 1.0

    @property
    def bias_slot(self) -> int:
        """C."""
        return 2

    @property
    def bias_by_row(self) -> bool:
        """True: C is broadcast from either side."""
        return True

    @property
    def input_axis(self) -> int:
        """The contracted axis of A."""
        return 0 if self.transposed_input else 1

    @property
    def rows_are_positions(self) -> bool:
        """True if the rows of A are those of the product."""
        return not self.transposed_input

    def wide(self, columns: int) -> bool:
        """Return whether there are so many columns that copies of the weights count."""
        return not self.transposed_input and columns >= WIDE


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftProduct(Kernel):
    """MatMul with the weight on the left, (m, p): the channels are those of the second-last axis."""

    @property
    def input_axis(self) -> int:
        """The second-last axis."""
        return -2

    @property
    def output_axis(self) -> int:
        """The second-last axis."""
        return -2

    def by_channel(self, tensor: Array, axis: int) -> Float32:
        """Return `tensor` as (1, channels, n)."""
        return grouped(tensor, axis, self.groups)

    def to_matrix(self, weight: Array) -> Weights:
        """Return the transpose of the weight."""
        return np.ascontiguousarray(weight.astype(np.float64).T)[None]

    def from_matrix(self, matrix: Weights, dtype: DTypeLike, weight_shape: Sequence[int]) -> Array:
        """Return the weight; see `Kernel`."""
        return np.ascontiguousarray(matrix[0].T).reshape(tuple(weight_shape)).astype(dtype)


def read(node: onnx.NodeProto, weight_shape: tuple[int, ...], weight_slot: int) -> Kernel | None:
    """Return the kernel of a MatMul or Gemm with a matrix; see `kernel.Reader`."""
    if len(weight_shape) != 2:
        return None
    label, found = label_of(node), attributes(node)
    if key_of(node) == "Gemm" and weight_slot == 1:
        alpha = float(found.get("alpha", 1.0))
        if alpha == 0.0:
            raise ValueError(f"{label}: a Gemm with alpha = 0 does not contract its input")
        return Gemm(
            node=label,
            transposed_input=bool(found.get("transA", 0)),
            transposed=bool(found.get("transB", 0)),
            alpha=alpha,
            bias_scale=float(found.get("beta", 1.0)),
        )
    if key_of(node) == "MatMul" and weight_slot in (0, 1):
        return Product(node=label) if weight_slot else LeftProduct(node=label)
    return None
