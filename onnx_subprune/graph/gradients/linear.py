"""Gradients of convolutions and products of matrices."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from onnx_subprune.graph.gradients.tape import Call, NoGradientError, Shape, Tape
from onnx_subprune.graph.operators import attribute

Rule = Callable[[Call], list[str | None]]


@dataclass(frozen=True, slots=True)
class Window:
    """How windows lie on an image: lists of one number a spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def attributes(self) -> dict[str, list[int]]:
        """As a convolution has them."""
        pads = [*self.before, *self.after]
        return {"strides": [*self.strides], "dilations": [*self.dilations], "pads": pads}

    def tap(self, tape: Tape, image: str, offset: tuple[int, ...], places: Shape) -> str:
        """Return what one weight of the kernel meets in a padded image (N, C, ...), at all `places` of the windows."""
        if self.kernel == self.strides == (1,) * len(self.kernel):
            return image
        starts = [k * d for k, d in zip(offset, self.dilations, strict=True)]
        stops = [a + s * (n - 1) + 1 for a, s, n in zip(starts, self.strides, places, strict=True)]
        return tape.cut(image, range(2, 2 + len(places)), starts, stops, self.strides)

    def rest(self, image: Shape, places: Shape) -> list[int]:
        """Return how many numbers at the end of each axis of an image no window reaches."""
        reached = [
            (n - 1) * s + (k - 1) * d + 1 - b - a
            for n, s, k, d, b, a in zip(
                places, self.strides, self.kernel, self.dilations, self.before, self.after, strict=True
            )
        ]
        return [size - end for size, end in zip(image, reached, strict=True)]


def window_of(call: Call, kernel: Shape, image: Shape, places: Shape) -> Window:
    """Return the windows of a convolution or a pooling; image, places: sizes of the spatial axes."""
    rank = len(kernel)
    strides, dilations = (tuple(call.integers(name, 99) or [1] * rank) for name in ("strides", "dilations"))
    how = call.text("auto_pad", "NOTSET")
    if how == "NOTSET":
        pads = call.integers("pads", 99) or [0] * (2 * rank)
        return Window(kernel, strides, dilations, tuple(pads[:rank]), tuple(pads[rank:]))
    if how == "VALID":
        return Window(kernel, strides, dilations, (0,) * rank, (0,) * rank)
    needed = [
        max((n - 1) * s + (k - 1) * d + 1 - size, 0)
        for n, s, k, d, size in zip(places, strides, kernel, dilations, image, strict=True)
    ]
    less, more = tuple(item // 2 for item in needed), tuple(item - item // 2 for item in needed)
    return Window(kernel, strides, dilations, *((less, more) if how == "SAME_UPPER" else (more, less)))


def conv(call: Call) -> list[str | None]:
    """Conv: back through a transposed convolution, and one product for each place of the kernel."""
    tape, (x, w) = call.tape, call.node.input[:2]
    image, kernel, places = tape.shape(x), tape.shape(w), call.shape
    window, group = window_of(call, kernel[2:], image[2:], places[2:]), call.integer("group", 1)
    found: list[str | None] = [None] * len(call.node.input)
    if call.wants(0):
        rest = window.rest(image[2:], places[2:])
        found[0] = tape.op("ConvTranspose", call.grad, w, group=group, output_padding=rest, **window.attributes)
    if call.wants(1):
        found[1] = kernel_gradient(tape, window, (x, image), (call.grad, places), group)
    if call.wants(2):
        found[2] = tape.total(tape.reshape(call.grad, (*places[:2], -1)), [0, 2])
    return found


def conv_transpose(call: Call) -> list[str | None]:
    """ConvTranspose: a convolution with image and windows the other way round."""
    tape, (x, w) = call.tape, call.node.input[:2]
    if call.text("auto_pad", "NOTSET") != "NOTSET" or attribute(call.node, "output_shape") is not None:
        raise NoGradientError("its padding follows from the size of the output")
    places, kernel, image = tape.shape(x), tape.shape(w), call.shape
    window, group = window_of(call, kernel[2:], image[2:], places[2:]), call.integer("group", 1)
    found: list[str | None] = [None] * len(call.node.input)
    if call.wants(0):
        found[0] = tape.op("Conv", call.grad, w, group=group, **window.attributes)
    if call.wants(1):
        found[1] = kernel_gradient(tape, window, (call.grad, image), (x, places), group)
    if call.wants(2):
        found[2] = tape.total(tape.reshape(call.grad, (*image[:2], -1)), [0, 2])
    return found


def kernel_gradient(
    tape: Tape, window: Window, image: tuple[str, Shape], windows: tuple[str, Shape], group: int
) -> str:
    """Return the gradient (O, C / group, ...) of a kernel that makes windows (N, O, ...) of an image (N, C, ...), given as tensors with their shapes."""
    (x, (batch, inputs, *_)), (y, (_, outputs, *spatial)) = image, windows
    places, wide, each = prod(spatial), inputs // group, outputs // group
    x = tape.padded(x, [0, 0, *window.before], [0, 0, *window.after])
    alone = wide == each == 1
    y = tape.reshape(y, (batch, outputs, places) if alone else (batch, group, each, places))
    taps = []
    for offset in np.ndindex(*window.kernel):
        tap = window.tap(tape, x, offset, tuple(spatial))
        if alone:
            product = tape.op("Mul", tape.reshape(tap, (batch, inputs, places)), y)
            summed = tape.total(tape.total(product, [2]), [0])
        else:
            tap = tape.transpose(tape.reshape(tap, (batch, group, wide, places)), (0, 1, 3, 2))
            summed = tape.total(tape.op("MatMul", y, tap), [0])
        taps.append(tape.reshape(summed, (outputs, wide, 1)))
    joined = taps[0] if len(taps) == 1 else tape.op("Concat", *taps, axis=2)
    return tape.reshape(joined, (outputs, wide, *window.kernel))


def product(tape: Tape, a: str, b: str, turned: tuple[bool, bool] = (False, False)) -> str:
    """Return a product of matrices, of which one or both are transposed."""
    a, b = (tape.transpose(name, (1, 0)) if turn else name for name, turn in zip((a, b), turned, strict=True))
    return tape.op("MatMul", a, b)


def gemm(call: Call) -> list[str | None]:
    """Gemm."""
    tape, (a, b) = call.tape, call.node.input[:2]
    turn_a, turn_b = bool(call.integer("transA", 0)), bool(call.integer("transB", 0))
    alpha, beta, g = call.float("alpha", 1.0), call.float("beta", 1.0), call.grad
    found: list[str | None] = [None] * len(call.node.input)
    if call.wants(0):
        found[0] = product(tape, b, g, (turn_b, True)) if turn_a else product(tape, g, b, (False, not turn_b))
    if call.wants(1):
        found[1] = product(tape, g, a, (True, turn_a)) if turn_b else product(tape, a, g, (not turn_a, False))
    found = [item if item is None or alpha == 1 else tape.op("Mul", item, tape.number(alpha)) for item in found]
    if call.wants(2):
        scaled = g if beta == 1 else tape.op("Mul", g, tape.number(beta))
        found[2] = tape.fitted(scaled, call.shape, tape.shape(call.node.input[2]))
    return found


def matmul(call: Call) -> list[str | None]:
    """MatMul: with one matrix for all samples as one product, else batched."""
    tape, (a, b), g = call.tape, call.node.input, call.grad
    shape_a, shape_b = tape.shape(a), tape.shape(b)
    if len(shape_b) == 2 and len(shape_a) >= 2:
        inner, columns = shape_b
        flat = tape.reshape(g, (-1, columns))
        first = tape.reshape(product(tape, flat, b, (False, True)), shape_a) if call.wants(0) else None
        second = product(tape, tape.reshape(a, (-1, inner)), flat, (True, False)) if call.wants(1) else None
        return [first, second]
    wide_a = (1, *shape_a) if len(shape_a) == 1 else shape_a
    wide_b = (*shape_b, 1) if len(shape_b) == 1 else shape_b
    batch = np.broadcast_shapes(wide_a[:-2], wide_b[:-2])
    g = tape.reshape(g, (*batch, wide_a[-2], wide_b[-1]))
    found: list[str | None] = [None, None]
    if call.wants(0):
        other = tape.transpose(tape.reshape(b, wide_b), (*range(len(wide_b) - 2), len(wide_b) - 1, len(wide_b) - 2))
        whole = tape.fitted(tape.op("MatMul", g, other), (*batch, *wide_a[-2:]), wide_a)
        found[0] = tape.reshape(whole, shape_a)
    if call.wants(1):
        other = tape.transpose(tape.reshape(a, wide_a), (*range(len(wide_a) - 2), len(wide_a) - 1, len(wide_a) - 2))
        whole = tape.fitted(tape.op("MatMul", other, g), (*batch, *wide_b[-2:]), wide_b)
        found[1] = tape.reshape(whole, shape_b)
    return found


RULES: Mapping[str, Rule] = {"Conv": conv, "ConvTranspose": conv_transpose, "Gemm": gemm, "MatMul": matmul}
