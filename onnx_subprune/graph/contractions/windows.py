"""Where the taps of a convolution read: tap t of output position o reads the image at offsets[t] + step * o, axis by axis.

A Conv steps by its stride over the image. A ConvTranspose steps by one over the image whose pixels were moved
`input_dilation` apart, zeros between them, and its offsets fall with t. So both are the same gather, and everything behind
this module knows only windows. What lies outside of the image is zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from onnx_subprune.graph.contractions.contraction import AutoPad, Kernel, Kind


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


def windows(contraction: Kernel, sizes: Sequence[int]) -> tuple[Window, ...]:
    """Return the window of every spatial axis for an input with these spatial `sizes`."""
    along = _conv if contraction.kind is Kind.CONV else _conv_transpose
    return tuple(along(contraction, axis, size) for axis, size in enumerate(sizes))


def _conv(c: Kernel, axis: int, size: int) -> Window:
    stride, dilation, reach = c.strides[axis], c.dilations[axis], (c.kernel[axis] - 1) * c.dilations[axis] + 1
    begin, end = c.pads[axis], c.pads[c.spatial + axis]
    if c.auto_pad is AutoPad.VALID:
        begin = end = 0
    elif c.auto_pad is not AutoPad.NOTSET:
        total = max(0, (-(-size // stride) - 1) * stride + reach - size)
        begin = total // 2 if c.auto_pad is AutoPad.SAME_UPPER else total - total // 2
        end = total - begin
    out = max(0, (size + begin + end - reach) // stride + 1)
    return Window(
        size=size,
        input_dilation=1,
        out=out,
        step=stride,
        offsets=tuple(t * dilation - begin for t in range(c.kernel[axis])),
    )


def _conv_transpose(c: Kernel, axis: int, size: int) -> Window:
    stride, dilation = c.strides[axis], c.dilations[axis]
    natural = (size - 1) * stride + c.output_padding[axis] + (c.kernel[axis] - 1) * dilation + 1
    begin, end = c.pads[axis], c.pads[c.spatial + axis]
    same = c.auto_pad in (AutoPad.SAME_UPPER, AutoPad.SAME_LOWER)
    if c.output_shape or same:
        out = c.output_shape[axis - c.spatial] if c.output_shape else size * stride
        total = max(0, natural - out)
        begin = total // 2 if c.auto_pad is AutoPad.SAME_UPPER else total - total // 2
    else:
        if c.auto_pad is AutoPad.VALID:
            begin = end = 0
        out = natural - begin - end
    return Window(
        size=size,
        input_dilation=stride,
        out=out,
        step=1,
        offsets=tuple(begin - t * dilation for t in range(c.kernel[axis])),
    )
