"""Conv and ConvTranspose.

    Conv            weight (groups * m, c, *kernel)      W[g, c * taps + t, j] = weight[g * m + j, c, t]
    ConvTranspose   weight (groups * c, m, *kernel)      W[g, c * taps + t, j] = weight[g * c + c', j, t]

Tap t of output position o reads the image at offsets[t] + step * o, axis by axis. A Conv steps by its stride over the image. A ConvTranspose
steps by one over the image whose pixels were moved `input_dilation` apart, zeros between them, and its offsets fall with t. So both are the same
gather, and everything behind this module knows only windows. What lies outside of the image is zero.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import DTypeLike

from onnx_subprune._typing import Array, Float32, Weights
from onnx_subprune.graph.contractions.kernel import Kernel, grouped, label_of
from onnx_subprune.graph.operators import attributes, key_of


class AutoPad(Enum):
    """The attribute auto_pad; all but NOTSET are resolved from the input's shape."""

    NOTSET = "NOTSET"
    VALID = "VALID"
    SAME_UPPER = "SAME_UPPER"
    SAME_LOWER = "SAME_LOWER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One spatial axis.

    size: pixels of the image. input_dilation: how far apart they lie. out: output positions.
    """

    size: int
    input_dilation: int
    out: int
    step: int
    offsets: tuple[int, ...]

    @property
    def dilated(self) -> int:
        """Pixels of the image with the zeros between them."""
        return (self.size - 1) * self.input_dilation + 1 if self.size else 0

    @property
    def before(self) -> int:
        """Zeros that are read before the image."""
        return max(0, -min(self.offsets))

    @property
    def after(self) -> int:
        """Zeros that are read behind the image."""
        return max(0, max(self.offsets) + self.step * (self.out - 1) - (self.dilated - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution(Kernel):
    """What both have in common.

    kernel, strides, dilations: one number a spatial axis. pads: begins, then ends; what they are under `auto_pad` NOTSET.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto_pad: AutoPad = AutoPad.NOTSET

    @property
    def spatial(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def taps(self) -> int:
        """Columns that a channel owns."""
        return prod(self.kernel)

    @property
    def bias_slot(self) -> int:
        """B."""
        return 2

    @property
    def input_axis(self) -> int:
        """The channels of images."""
        return 1

    @property
    def output_axis(self) -> int:
        """The channels of images."""
        return 1

    def by_channel(self, tensor: Array, axis: int) -> Float32:
        """Return images as (groups, channels, n)."""
        return grouped(tensor, axis, self.groups)

    def windows(self, sizes: Sequence[int]) -> tuple[Window, ...]:
        """Return the window of every spatial axis for an input with these spatial `sizes`."""
        return tuple(self._window(axis, size) for axis, size in enumerate(sizes))

    @abstractmethod
    def _window(self, axis: int, size: int) -> Window:
        """The window of an axis of `size` pixels."""


class Conv(Convolution):
    """Conv."""

    __slots__ = ()

    def to_matrix(self, weight: Array) -> Weights:
        """Return the weight as W; see `Kernel`."""
        wide = weight.astype(np.float64)
        return np.ascontiguousarray(wide.reshape(self.groups, len(wide) // self.groups, -1).transpose(0, 2, 1))

    def from_matrix(self, matrix: Weights, dtype: DTypeLike, weight_shape: Sequence[int]) -> Array:
        """Return the weight; see `Kernel`."""
        return np.ascontiguousarray(matrix.transpose(0, 2, 1)).reshape(tuple(weight_shape)).astype(dtype)

    def _window(self, axis: int, size: int) -> Window:
        stride, dilation, reach = (
            self.strides[axis],
            self.dilations[axis],
            (self.kernel[axis] - 1) * self.dilations[axis] + 1,
        )
        begin, end = self.pads[axis], self.pads[self.spatial + axis]
        if self.auto_pad is AutoPad.VALID:
            begin = end = 0
        elif self.auto_pad is not AutoPad.NOTSET:
            total = max(0, (-(-size // stride) - 1) * stride + reach - size)
            begin = total // 2 if self.auto_pad is AutoPad.SAME_UPPER else total - total // 2
            end = total - begin
        out = max(0, (size + begin + end - reach) // stride + 1)
        return Window(
            size=size,
            input_dilation=1,
            out=out,
            step=stride,
            offsets=tuple(t * dilation - begin for t in range(self.kernel[axis])),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvTranspose(Convolution):
    """ConvTranspose. output_padding: one number a spatial axis. output_shape: empty, or the spatial sizes that were given."""

    output_padding: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()

    def to_matrix(self, weight: Array) -> Weights:
        """Return the weight as W; see `Kernel`."""
        wide = weight.astype(np.float64)
        parts = wide.reshape(self.groups, len(wide) // self.groups, wide.shape[1], self.taps)
        return np.ascontiguousarray(parts.transpose(0, 1, 3, 2)).reshape(self.groups, -1, wide.shape[1])

    def from_matrix(self, matrix: Weights, dtype: DTypeLike, weight_shape: Sequence[int]) -> Array:
        """Return the weight; see `Kernel`."""
        plain = matrix.reshape(self.groups, -1, self.taps, matrix.shape[2]).transpose(0, 1, 3, 2)
        return np.ascontiguousarray(plain).reshape(tuple(weight_shape)).astype(dtype)

    def macs(self, input_shape: Sequence[int], output_shape: Sequence[int]) -> int:
        """Return the multiply-accumulates: each input position is spread over all taps."""
        channels, made = input_shape[1], output_shape[1]
        return prod(input_shape) // max(1, channels) * channels * made * self.taps // self.groups

    def _window(self, axis: int, size: int) -> Window:
        stride, dilation = self.strides[axis], self.dilations[axis]
        natural = (size - 1) * stride + self.output_padding[axis] + (self.kernel[axis] - 1) * dilation + 1
        begin, end = self.pads[axis], self.pads[self.spatial + axis]
        same = self.auto_pad in (AutoPad.SAME_UPPER, AutoPad.SAME_LOWER)
        if self.output_shape or same:
            out = self.output_shape[axis - self.spatial] if self.output_shape else size * stride
            total = max(0, natural - out)
            begin = total // 2 if self.auto_pad is AutoPad.SAME_UPPER else total - total // 2
        else:
            if self.auto_pad is AutoPad.VALID:
                begin = end = 0
            out = natural - begin - end
        return Window(
            size=size,
            input_dilation=stride,
            out=out,
            step=1,
            offsets=tuple(begin - t * dilation for t in range(self.kernel[axis])),
        )


def read(node: onnx.NodeProto, weight_shape: tuple[int, ...], weight_slot: int) -> Kernel | None:
    """Return the kernel of a Conv or ConvTranspose with such a weight; see `kernel.Reader`."""
    if key_of(node) not in ("Conv", "ConvTranspose") or weight_slot != 1 or len(weight_shape) < 3:
        return None
    found, kernel = attributes(node), weight_shape[2:]

    def integers(name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(int(value) for value in found.get(name, default))

    ones, auto_pad = (1,) * len(kernel), found.get("auto_pad", b"NOTSET").decode()
    common: dict[str, Any] = {
        "node": label_of(node),
        "groups": int(found.get("group", 1)),
        "kernel": kernel,
        "strides": integers("strides", ones),
        "dilations": integers("dilations", ones),
        "pads": integers("pads", (0,) * (2 * len(kernel))),
        "auto_pad": AutoPad(auto_pad or "NOTSET"),
    }
    if key_of(node) == "Conv":
        return Conv(**common)
    return ConvTranspose(
        **common,
        output_padding=integers("output_padding", (0,) * len(kernel)),
        output_shape=integers("output_shape", ()),
    )
