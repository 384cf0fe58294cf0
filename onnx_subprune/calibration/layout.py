"""A contraction as a matrix product: output rows = unfolded input @ weight matrix + bias, one product a convolution group.

The unfolded input has a row for every output position of every sample and p = (channels of a group) * taps columns; a channel owns
`taps` consecutive ones. Arrays are kept transposed, (groups, p, n): every column then is a contiguous run of shifted images, which is
what makes the copies and the products fast.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from onnx_subprune.graph.channels import Contraction
from onnx_subprune.graph.model import attribute

Array = NDArray[np.generic]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

BLOCK = 64 << 20
"""Bytes of unfolded input that are alive at once."""


def _integers(node: NodeProto, name: str, default: Sequence[int]) -> tuple[int, ...]:
    value = attribute(node, name, list(default))
    assert isinstance(value, (list, tuple))
    return tuple(int(v) for v in value)


def _number(node: NodeProto, name: str, default: float) -> float:
    value = attribute(node, name, default)
    assert isinstance(value, (int, float))
    return float(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How one node contracts. `shape` is that of its weight, `rows` the weight's input axis."""

    op: str
    shape: tuple[int, ...]
    rows: int
    groups: int
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto_pad: str
    transposed: bool
    scale: float
    bias_scale: float
    left: bool

    @classmethod
    def of(cls, node: NodeProto, contraction: Contraction, shape: Sequence[int]) -> "Layout":
        """Return the layout of `node`, whose weight has `shape`."""
        spatial = len(shape) - 2
        auto_pad = attribute(node, "auto_pad", b"NOTSET")
        gemm = node.op_type == "Gemm"
        return cls(
            op=node.op_type,
            shape=tuple(shape),
            rows=contraction.rows.index,
            groups=contraction.groups,
            strides=_integers(node, "strides", (1,) * spatial),
            dilations=_integers(node, "dilations", (1,) * spatial),
            pads=_integers(node, "pads", (0,) * (2 * spatial)),
            auto_pad=auto_pad.decode() if isinstance(auto_pad, bytes) else "NOTSET",
            transposed=gemm and bool(_number(node, "transA", 0)),
            scale=_number(node, "alpha", 1.0) if gemm else 1.0,
            bias_scale=_number(node, "beta", 1.0) if gemm else 1.0,
            left=contraction.weight.slot == 0,
        )

    @property
    def convolution(self) -> bool:
        """True for Conv and ConvTranspose."""
        return self.op in ("Conv", "ConvTranspose")

    @property
    def kernel(self) -> tuple[int, ...]:
        """Kernel sizes; empty for matrix products."""
        return self.shape[2:] if self.convolution else ()

    @property
    def taps(self) -> int:
        """Columns that a channel owns."""
        return int(np.prod(self.kernel, dtype=np.int64)) if self.convolution else 1

    def to_matrix(self, weight: Array) -> Float64:
        """Return `weight` as (groups, p, m) float64, Gemm's alpha included."""
        wide = weight.astype(np.float64)
        if not self.convolution:
            return (wide if self.rows == 0 else wide.T)[None] * self.scale
        if self.op == "Conv":  # (g * m, channels, kernel)
            parts = wide.reshape(self.groups, wide.shape[0] // self.groups, -1)
            return np.ascontiguousarray(parts.transpose(0, 2, 1))
        split = wide.reshape(self.groups, wide.shape[0] // self.groups, wide.shape[1], -1)  # (g, channels, m, taps)
        return np.ascontiguousarray(split.transpose(0, 1, 3, 2)).reshape(self.groups, -1, wide.shape[1])

    def from_matrix(self, matrix: Float64, dtype: np.dtype[np.generic]) -> Array:
        """Return the weight whose matrix is `matrix`, cast to `dtype`."""
        if not self.convolution:
            plain = matrix[0] / self.scale
            return np.ascontiguousarray(plain if self.rows == 0 else plain.T).astype(dtype)
        if self.op == "Conv":
            return np.ascontiguousarray(matrix.transpose(0, 2, 1)).reshape(self.shape).astype(dtype)
        parts = matrix.reshape(self.groups, -1, self.taps, matrix.shape[2]).transpose(0, 1, 3, 2)
        return np.ascontiguousarray(parts).reshape(self.shape).astype(dtype)

    def target(self, output: Array) -> Float32:
        """Return the output as (groups, m, n) float32, in the order of the unfolded input."""
        wide = output.astype(np.float32, copy=False)
        channels = 1 if self.convolution else -2 if self.left else -1
        wide = np.moveaxis(wide, channels, 0)
        return np.ascontiguousarray(wide).reshape(self.groups, wide.shape[0] // self.groups, -1)

    def output(self, target: Float32, shape: Sequence[int]) -> Float32:
        """Undo `target`: return the output of this shape."""
        if self.convolution:
            channels = shape[1]
            return np.moveaxis(target.reshape(channels, shape[0], *shape[2:]), 0, 1)
        axis = -2 if self.left else -1
        moved = np.moveaxis(np.empty(shape, np.bool_), axis, 0).shape
        return np.moveaxis(target.reshape(moved), 0, axis)

    def blocks(self, x: Array, output_shape: Sequence[int]) -> Iterator[tuple[slice, Float32]]:
        """Yield the unfolded input (groups, p, n) in blocks of samples, with the columns of `target` that each block has.

        The blocks depend on the shapes only.
        """
        wide = x.astype(np.float32, copy=False)
        if not self.convolution:
            columns = np.moveaxis(wide.T if self.transposed else wide, -2 if self.left else -1, 0)
            flat = columns.reshape(1, columns.shape[0], -1)
            yield slice(0, flat.shape[2]), flat
            return
        positions = int(np.prod(output_shape[2:], dtype=np.int64))
        each = x.shape[1] * self.taps * positions * 4
        step = max(1, BLOCK // max(1, each))
        for start in range(0, len(x), step):
            part = wide[start : start + step]
            yield slice(start * positions, (start + len(part)) * positions), self._unfold(part, tuple(output_shape[2:]))

    def _unfold(self, x: Float32, out: tuple[int, ...]) -> Float32:
        samples, channels = x.shape[:2]
        begin = self._begin(x.shape[2:], out)
        plain = self.taps == 1 and set(self.strides) == {1} and x.shape[2:] == out and not any(begin)
        if plain:
            return np.ascontiguousarray(np.moveaxis(x, 1, 0)).reshape(self.groups, channels // self.groups, -1)
        unfolded = np.zeros((channels, self.taps, samples, *out), np.float32)
        images = np.moveaxis(x, 1, 0)
        for tap, offsets in enumerate(np.ndindex(*self.kernel)):
            source: list[slice] = [slice(None), slice(None)]
            target: list[slice] = [slice(None), slice(None)]
            for axis, offset in enumerate(offsets):
                shift = offset * self.dilations[axis] - begin[axis]
                read, write = self._window(shift, self.strides[axis], x.shape[2 + axis], out[axis])
                source.append(read)
                target.append(write)
            unfolded[:, tap][tuple(target)] = images[tuple(source)]
        return unfolded.reshape(self.groups, channels // self.groups * self.taps, -1)

    def _window(self, shift: int, stride: int, size: int, out: int) -> tuple[slice, slice]:
        """The runs of input and output positions that this tap joins along one axis."""
        if self.op == "Conv":  # input position = output position * stride + shift
            first = max(0, -(shift // stride))
            last = min(out, (size - 1 - shift) // stride + 1)
            last = max(first, last)
            start = first * stride + shift
            return slice(start, start + (last - first - 1) * stride + 1 if last > first else start, stride), slice(
                first, last
            )
        first = max(0, -(shift // stride))  # output position = input position * stride + shift
        last = max(first, min(size, (out - 1 - shift) // stride + 1))
        start = first * stride + shift
        return slice(first, last), slice(
            start, start + (last - first - 1) * stride + 1 if last > first else start, stride
        )

    def _begin(self, size: Sequence[int], out: Sequence[int]) -> tuple[int, ...]:
        """Padding before the first position of each spatial axis."""
        spatial = len(self.kernel)
        if self.auto_pad in ("NOTSET", ""):
            return self.pads[:spatial]
        if self.auto_pad == "VALID":
            return (0,) * spatial
        begins = []
        for axis in range(spatial):
            reach = (self.kernel[axis] - 1) * self.dilations[axis] + 1
            a, b = (out[axis], size[axis]) if self.op == "Conv" else (size[axis], out[axis])
            total = max(0, (a - 1) * self.strides[axis] + reach - b)
            begins.append(total // 2 if self.auto_pad == "SAME_UPPER" else total - total // 2)
        return tuple(begins)
