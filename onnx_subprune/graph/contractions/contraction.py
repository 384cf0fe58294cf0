"""How a consumer contracts its input: output = unfold(input) @ W + bias, one product a convolution group.

The unfolded input has a row for every output position of every sample and p = c * taps columns: c channels in a group,
each owning `taps` consecutive columns (the kernel's positions in row-major order, 1 for matrix products). W is
(groups, p, m), m output channels a group:

    Conv            weight (groups * m, c, *kernel)      W[g, c * taps + t, j] = weight[g * m + j, c, t]
    ConvTranspose   weight (groups * c, m, *kernel)      W[g, c * taps + t, j] = weight[g * c + c', j, t]
    Gemm            alpha A' B' + beta C                 W = alpha * B (its transpose with transB)
    MatMul          input @ weight                       W = weight
    Einsum          as MatMul, or with weight' (see `einsum`); with a matrix a group, W[g] = weight[g], or weight[g]'
    MatMul, left    weight @ input                       W = weight', contracted over the input's second-last axis
    GRU, LSTM, RNN  see `recurrent`

https://onnx.ai/onnx/operators/ describes the operators.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from math import prod

import numpy as np
import onnx
from numpy.typing import DTypeLike

from onnx_subprune._typing import Array, Int64
from onnx_subprune.graph.channels import Contraction
from onnx_subprune.graph.contractions.einsum import matrix_product
from onnx_subprune.graph.contractions.recurrent import GATES, OPERATORS, reversed_directions
from onnx_subprune.graph.network import Network, key_of
from onnx_subprune.selection.linalg.ridge import Weights

WIDE = 4096
"""Columns from which a matrix product counts as wide."""


class Kind(Enum):
    """The operators that contract; the value is the operator's name."""

    CONV = "Conv"
    CONV_TRANSPOSE = "ConvTranspose"
    GEMM = "Gemm"
    MATMUL = "MatMul"
    LEFT_MATMUL = "MatMul with the weight on the left"
    STACKED = "MatMul with a matrix for each place of the axis before the channels"
    RECURRENT_INPUT = "W of a recurrent layer"
    RECURRENT_UNITS = "R of a recurrent layer"


class AutoPad(Enum):
    """The attribute auto_pad of convolutions; all but NOTSET are resolved from the input's shape."""

    NOTSET = "NOTSET"
    VALID = "VALID"
    SAME_UPPER = "SAME_UPPER"
    SAME_LOWER = "SAME_LOWER"


CONVOLUTIONS = frozenset({Kind.CONV, Kind.CONV_TRANSPOSE})
RECURRENT = frozenset({Kind.RECURRENT_INPUT, Kind.RECURRENT_UNITS})
ALIKE = frozenset({Kind.RECURRENT_UNITS, Kind.STACKED})
"""All groups have the same channels: those of one axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A node that contracts an activation with a constant.

    kernel, strides, dilations, output_padding: one number a spatial axis; empty for matrix products.
    pads: begins, then ends; what they are under `auto_pad` NOTSET.
    output_shape: empty, or the spatial sizes that ConvTranspose was given.
    transposed_input, transposed_weight: Gemm's transA and transB. alpha, bias_scale: Gemm's alpha and beta.
    backwards: for each direction of a recurrent layer, whether it begins at the last step. units: how many it has; of a stack, how many channels it reads.
    """

    node: str
    kind: Kind
    groups: int = 1
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    auto_pad: AutoPad = AutoPad.NOTSET
    output_padding: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()
    transposed_input: bool = False
    transposed_weight: bool = False
    alpha: float = 1.0
    bias_scale: float = 1.0
    backwards: tuple[bool, ...] = ()
    units: int = 0

    @classmethod
    def from_node(cls, node: onnx.NodeProto, weight_shape: Sequence[int], weight_slot: int = 1) -> "Kernel":
        """Read the attributes of `node`, whose input `weight_slot` is a constant of `weight_shape`.

        Raises ValueError for operators that do not contract and for weights of a rank that is not handled.
        """
        found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        label = node.name or next(iter(node.output), "")
        rank = len(weight_shape)
        if key_of(node) in (Kind.CONV.value, Kind.CONV_TRANSPOSE.value) and weight_slot == 1 and rank >= 3:
            return cls._convolution(label, Kind(key_of(node)), found, tuple(int(size) for size in weight_shape[2:]))
        if key_of(node) == "Gemm" and weight_slot == 1 and rank == 2:
            alpha = float(found.get("alpha", 1.0))
            if alpha == 0.0:
                raise ValueError(f"{label}: a Gemm with alpha = 0 does not contract its input")
            return cls(
                node=label,
                kind=Kind.GEMM,
                transposed_input=bool(found.get("transA", 0)),
                transposed_weight=bool(found.get("transB", 0)),
                alpha=alpha,
                bias_scale=float(found.get("beta", 1.0)),
            )
        if key_of(node) == "MatMul" and weight_slot in (0, 1) and rank == 2:
            return cls(node=label, kind=Kind.MATMUL if weight_slot else Kind.LEFT_MATMUL)
        product = matrix_product(node, weight_slot) if key_of(node) == "Einsum" and rank in (2, 3) else None
        if product is not None and product.grouped == (rank == 3):
            plain = cls(node=label, kind=Kind.MATMUL, transposed_weight=product.transposed)
            units = int(weight_shape[2 if product.transposed else 1]) if product.grouped else 0
            return replace(plain, kind=Kind.STACKED, groups=int(weight_shape[0]), units=units) if units else plain
        if key_of(node) in OPERATORS and weight_slot in (1, 2) and rank == 3:
            directions, rows, columns = (int(size) for size in weight_shape)
            return cls(
                node=label,
                kind=Kind.RECURRENT_INPUT if weight_slot == 1 else Kind.RECURRENT_UNITS,
                groups=1 if weight_slot == 1 else directions,
                backwards=reversed_directions(found, directions),
                units=columns if weight_slot == 2 else rows // GATES[key_of(node)],
            )
        raise ValueError(
            f"{label}: {key_of(node)} with a constant of shape {tuple(weight_shape)} at input {weight_slot} "
            "is not a known contraction"
        )

    @classmethod
    def _convolution(
        cls, label: str, kind: Kind, found: dict[str, onnx.AttributeProto], kernel: tuple[int, ...]
    ) -> "Kernel":
        def integers(name: str, default: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(int(value) for value in found.get(name, default))

        ones, auto_pad = (1,) * len(kernel), found.get("auto_pad", b"NOTSET")
        assert isinstance(auto_pad, bytes)
        return cls(
            node=label,
            kind=kind,
            groups=int(found.get("group", 1)),
            kernel=kernel,
            strides=integers("strides", ones),
            dilations=integers("dilations", ones),
            pads=integers("pads", (0,) * (2 * len(kernel))),
            auto_pad=AutoPad(auto_pad.decode() or "NOTSET"),
            output_padding=integers("output_padding", (0,) * len(kernel)) if kind is Kind.CONV_TRANSPOSE else (),
            output_shape=integers("output_shape", ()) if kind is Kind.CONV_TRANSPOSE else (),
        )

    @property
    def spatial(self) -> int:
        """Number of spatial axes; 0 for matrix products."""
        return len(self.kernel)

    @property
    def taps(self) -> int:
        """Columns that a channel owns."""
        return prod(self.kernel)

    @property
    def bias_slot(self) -> int | None:
        """The input that takes a bias; None where the operator has none."""
        return 2 if self.kind in CONVOLUTIONS | {Kind.GEMM} else None

    @property
    def input_axis(self) -> int:
        """The input's axis that is contracted."""
        if self.kind is Kind.GEMM:
            return 0 if self.transposed_input else 1
        return 1 if self.kind in CONVOLUTIONS else -2 if self.kind is Kind.LEFT_MATMUL else -1

    @property
    def output_axis(self) -> int:
        """The output's channel axis."""
        return 1 if self.kind in CONVOLUTIONS else -2 if self.kind is Kind.LEFT_MATMUL else -1

    def wide(self, columns: int) -> bool:
        """Return whether this is a product with so many columns that copies of its weights count."""
        return self.kind in (Kind.GEMM, Kind.MATMUL) and not self.transposed_input and columns >= WIDE

    def to_matrix(self, weight: Array) -> Weights:
        """Return `weight` as W, (groups, p, m) float64, Gemm's alpha included; of a wide product a view, float32 if that is what it has."""
        if self.wide(weight.shape[int(self._transposes)]) and self.alpha == 1.0 and weight.dtype == np.float32:
            plain = weight.astype(np.float32, copy=False)
            return np.asarray(plain.T if self._transposes else plain)[None]
        wide = weight.astype(np.float64)
        if self.kind is Kind.RECURRENT_UNITS or (self.kind is Kind.STACKED and self._transposes):
            return np.ascontiguousarray(wide.transpose(0, 2, 1))
        if self.kind is Kind.STACKED:
            return wide
        if self.kind is Kind.RECURRENT_INPUT:
            return np.ascontiguousarray(wide.reshape(-1, wide.shape[2]).T)[None]
        if self.kind is Kind.CONV:
            return np.ascontiguousarray(wide.reshape(self.groups, len(wide) // self.groups, -1).transpose(0, 2, 1))
        if self.kind is Kind.CONV_TRANSPOSE:
            parts = wide.reshape(self.groups, len(wide) // self.groups, wide.shape[1], self.taps)
            return np.ascontiguousarray(parts.transpose(0, 1, 3, 2)).reshape(self.groups, -1, wide.shape[1])
        return np.ascontiguousarray(wide.T if self._transposes else wide)[None] * self.alpha

    def from_matrix(self, matrix: Weights, dtype: DTypeLike, weight_shape: Sequence[int]) -> Array:
        """Return the weight of `weight_shape` whose matrix is `matrix`, cast to `dtype`; undoes `to_matrix`."""
        if self.kind is Kind.CONV or self.kind in RECURRENT:
            plain = matrix.transpose(0, 2, 1)
        elif self.kind is Kind.CONV_TRANSPOSE:
            plain = matrix.reshape(self.groups, -1, self.taps, matrix.shape[2]).transpose(0, 1, 3, 2)
        elif self.kind is Kind.STACKED:
            plain = matrix.transpose(0, 2, 1) if self._transposes else matrix
        else:
            plain = matrix[0].T if self._transposes else matrix[0]
            plain = plain if self.alpha == 1.0 else plain / self.alpha
        return np.ascontiguousarray(plain).reshape(tuple(weight_shape)).astype(dtype)

    def columns_of(self, rows: Int64) -> Int64:
        """Return the columns, counted over all groups, that these places of the input axis own, with one more axis flattened into the last."""
        own = self.units * np.arange(self.groups) if self.kind in ALIKE else np.arange(self.taps)
        wide = rows[..., None] if self.kind in ALIKE else rows[..., None] * self.taps
        return np.asarray((wide + own).reshape(*rows.shape[:-1], -1))

    def macs(self, input_shape: Sequence[int], output_shape: Sequence[int]) -> int:
        """Return the multiply-accumulates of one run between these shapes; the batch and taps on padding count."""
        channels, made = input_shape[self.input_axis], output_shape[self.output_axis]
        shape, width = (input_shape, channels) if self.kind is Kind.CONV_TRANSPOSE else (output_shape, made)
        return prod(shape) // max(1, width) * channels * made * self.taps // self.groups

    @property
    def _transposes(self) -> bool:
        return self.transposed_weight or self.kind is Kind.LEFT_MATMUL


def kernel_of(network: Network, contraction: Contraction) -> tuple[Kernel, Weights]:
    """Return the kernel of a contraction and its weights as a matrix (g, p, m)."""
    weight = network.array(contraction.weight_tensor)
    kernel = Kernel.from_node(network.node(contraction.node), weight.shape, contraction.weight.slot)
    return kernel, kernel.to_matrix(weight)
