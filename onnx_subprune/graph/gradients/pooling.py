"""Gradients of poolings: each window gives back to what it was made of."""

from collections.abc import Callable, Mapping
from math import prod

import numpy as np

from onnx_subprune._typing import Int64
from onnx_subprune.graph.gradients.layout import reduced
from onnx_subprune.graph.gradients.linear import Window, window_of
from onnx_subprune.graph.gradients.tape import Call, NoGradientError, Shape

Rule = Callable[[Call], list[str | None]]
TINY = 1e-20
LEAST = float(np.finfo(np.float32).min)


def _window(call: Call) -> tuple[Window, Shape, Shape]:
    """The windows, and the shapes of the image and of the result."""
    image, places = call.tape.shape(call.node.input[0]), call.shape
    kernel = call.integers("kernel_shape", 99)
    assert kernel is not None
    window = window_of(call, tuple(kernel), image[2:], places[2:])
    if min(window.rest(image[2:], places[2:])) < 0:
        raise NoGradientError("its last windows reach beyond the padding (ceil_mode)")
    return window, image, places


def average_pool(call: Call) -> list[str | None]:
    """AveragePool: a transposed convolution with ones."""
    window, image, places = _window(call)
    padded = call.integer("count_include_pad", 0)
    whole = np.full(places[2:], prod(window.kernel), np.int64)
    share = 1 / (whole if padded else _counts(window, image[2:], places[2:]))
    grad = call.tape.op("Mul", call.grad, call.tape.constant(share.astype(np.float32)))
    ones = call.tape.constant(np.ones((image[1], 1, *window.kernel), np.float32))
    rest = window.rest(image[2:], places[2:])
    return [call.tape.op("ConvTranspose", grad, ones, group=image[1], output_padding=rest, **window.attributes)]


def _counts(window: Window, image: Shape, places: Shape) -> Int64:
    """How many numbers of the image each window holds."""
    found = np.ones((), np.int64)
    for axis, (size, count) in enumerate(zip(image, places, strict=True)):
        starts = np.arange(count)[:, None] * window.strides[axis] - window.before[axis]
        where = starts + np.arange(window.kernel[axis])[None] * window.dilations[axis]
        found = found[..., None] * ((where >= 0) & (where < size)).sum(axis=1, dtype=np.int64)
    return found


def max_pool(call: Call) -> list[str | None]:
    """MaxPool: to the largest of each window, in equal shares where several are."""
    tape, (window, image, places) = call.tape, _window(call)
    batch, channels = image[:2]
    x = tape.padded(call.node.input[0], [0, 0, *window.before], [0, 0, *window.after], LEAST)
    offsets = [*np.ndindex(*window.kernel)]
    single = (batch, channels, 1, *places[2:])
    taps = [
        tape.reshape(tape.mask(tape.op("Equal", window.tap(tape, x, offset, places[2:]), call.node.output[0])), single)
        for offset in offsets
    ]
    found = taps[0] if len(taps) == 1 else tape.op("Concat", *taps, axis=2)
    share = tape.op("Div", tape.reshape(call.grad, single), tape.total(found, [2], keep=True))
    parts = tape.reshape(tape.op("Mul", found, share), (batch, channels * len(offsets), *places[2:]))
    unit = np.eye(len(offsets), dtype=np.float32).reshape(len(offsets), 1, *window.kernel)
    kernel = tape.constant(np.tile(unit, (channels, 1, *[1] * len(window.kernel))))
    rest = window.rest(image[2:], places[2:])
    return [tape.op("ConvTranspose", parts, kernel, group=channels, output_padding=rest, **window.attributes)]


def global_average_pool(call: Call) -> list[str | None]:
    """GlobalAveragePool."""
    return reduced(call, [*range(2, len(call.shape))], mean=True)


def largest(call: Call) -> list[str | None]:
    """GlobalMaxPool, ReduceMax and ReduceMin: to the largest or smallest numbers, in equal shares."""
    tape, x = call.tape, call.node.input[0]
    whole = tape.shape(x)
    axes = [*range(2, len(whole))] if call.node.op_type == "GlobalMaxPool" else call.integers("axes", 1)
    over = {axis % len(whole) for axis in axes} if axes else {*range(len(whole))}
    kept = [1 if axis in over else size for axis, size in enumerate(whole)]
    if tape.opset < 11:
        raise NoGradientError(f"opset {tape.opset} compares no numbers; convert the model to 11 or newer")
    mask = tape.mask(tape.op("Equal", x, tape.reshape(call.node.output[0], kept)))
    share = tape.op("Div", tape.reshape(call.grad, kept), tape.total(mask, sorted(over), keep=True))
    return [tape.op("Mul", mask, share)]


def length(call: Call) -> list[str | None]:
    """ReduceL2: x over the length; nothing where that is nothing."""
    tape, x = call.tape, call.node.input[0]
    whole, axes = tape.shape(x), call.integers("axes", 1)
    over = {axis % len(whole) for axis in axes} if axes else {*range(len(whole))}
    kept = [1 if axis in over else size for axis, size in enumerate(whole)]
    least = tape.op("Add", tape.reshape(call.node.output[0], kept), tape.number(TINY))
    return [tape.op("Mul", x, tape.op("Div", tape.reshape(call.grad, kept), least))]


RULES: Mapping[str, Rule] = {
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average_pool,
    "GlobalMaxPool": largest,
    "MaxPool": max_pool,
    "ReduceL2": length,
    "ReduceMax": largest,
    "ReduceMin": largest,
}
