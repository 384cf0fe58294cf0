"""Gradients of operators that move numbers, or sum them."""

from collections.abc import Callable, Mapping
from math import prod

import numpy as np

from onnx_subprune.graph.gradients.tape import Call, NoGradientError, Shape

Rule = Callable[[Call], list[str | None]]
LARGEST = 1 << 24
"""Numbers of the matrix that a gather of places is put as."""


def same(call: Call) -> list[str | None]:
    """The same numbers in another shape, and Dropout, which does nothing here."""
    return [call.tape.reshape(call.grad, call.tape.shape(call.node.input[0]))]


def cast(call: Call) -> list[str | None]:
    """Cast from float32 to itself; nothing flows through others."""
    return [call.grad]


def transpose(call: Call) -> list[str | None]:
    """Transpose."""
    order = call.integers("perm", 99) or [*range(len(call.shape))][::-1]
    return [call.tape.transpose(call.grad, [int(item) for item in np.argsort(order)])]


def concat(call: Call) -> list[str | None]:
    """Concat."""
    axis, start = call.integer("axis", 1) % len(call.shape), 0
    found: list[str | None] = []
    for slot, name in enumerate(call.node.input):
        size = call.tape.shape(name)[axis]
        found.append(call.tape.cut(call.grad, [axis], [start], [start + size]) if call.wants(slot) else None)
        start += size
    return found


def split(call: Call) -> list[str | None]:
    """Split; parts that nobody reads have no gradient."""
    tape, axis = call.tape, call.integer("axis", 0)
    axis %= len(call.shape)
    parts = [
        tape.constant(np.zeros(tape.shape(name), np.float32)) if grad is None else grad
        for name, grad in zip(call.node.output, call.grads, strict=True)
        if name
    ]
    return [parts[0] if len(parts) == 1 else tape.op("Concat", *parts, axis=axis)]


def cut(call: Call) -> list[str | None]:
    """Slice."""
    whole, starts = call.tape.shape(call.node.input[0]), call.integers("starts", 1)
    assert starts is not None
    axes = call.integers("axes", 3) or [*range(len(starts))]
    steps = call.integers("steps", 4) or [1] * len(starts)
    found, shape = call.grad, call.shape
    for axis, start, step in zip((axis % len(whole) for axis in axes), starts, steps, strict=True):
        size, count = whole[axis], shape[axis]
        if count == 0:
            raise NoGradientError("it makes nothing")
        first = min(max(start + size if start < 0 else start, 0), size - 1)
        if step < 0:  # turn it round, then as with steps ahead
            found = call.tape.cut(found, [axis], [count - 1], [-(count + 1)], [-1])
            first += step * (count - 1)
        found, shape = call.tape.spread(found, shape, axis, (first, abs(step), size))
    return [found]


def pad(call: Call) -> list[str | None]:
    """Pad with a constant."""
    whole, pads = call.tape.shape(call.node.input[0]), call.integers("pads", 1)
    assert pads is not None
    if call.text("mode", "constant") != "constant" or min(pads) < 0:
        raise NoGradientError("it repeats what it pads, or cuts")
    rank = len(whole)
    axes = call.tape.integers(call.node.input[3]) if call.has(3) else [*range(rank)]
    axes = [axis % rank for axis in axes]
    starts = pads[: len(axes)]
    return [call.tape.cut(call.grad, axes, starts, [a + whole[axis] for a, axis in zip(starts, axes, strict=True)])]


def gather(call: Call) -> list[str | None]:
    """Gather at places that no data change: a product with the matrix that gathers."""
    tape, (data, places) = call.tape, call.node.input
    shape, picked = tape.shape(data), tape.integers(places)
    axis = call.integer("axis", 0) % len(shape)
    size, outer, inner = shape[axis], prod(shape[:axis]), prod(shape[axis + 1 :])
    picked = [place % size for place in picked]
    if picked == [*range(picked[0], picked[0] + len(picked))]:
        block: Shape = (outer, len(picked), inner)
        spread, _ = tape.spread(tape.reshape(call.grad, block), block, 1, (picked[0], 1, size))
        return [tape.reshape(spread, shape)]
    if size * len(picked) > LARGEST:
        raise NoGradientError("it gathers too many places")
    matrix = np.zeros((size, len(picked)), np.float32)
    matrix[picked, range(len(picked))] = 1
    found = tape.op("MatMul", tape.constant(matrix), tape.reshape(call.grad, (outer, len(picked), inner)))
    return [tape.reshape(found, shape)]


def depth_to_space(call: Call) -> list[str | None]:
    """DepthToSpace, in either order of the channels."""
    tape, shape, size = call.tape, call.tape.shape(call.node.input[0]), call.integer("blocksize", 1)
    batch, channels, high, wide = shape
    parts = tape.reshape(call.grad, (batch, channels // size**2, high, size, wide, size))
    order = (0, 3, 5, 1, 2, 4) if call.text("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return [tape.reshape(tape.transpose(parts, order), shape)]


def resize(call: Call) -> list[str | None]:
    """Resize and Upsample by whole factors, where each number is repeated: sums of the copies."""
    tape, few, many = call.tape, call.tape.shape(call.node.input[0]), call.shape
    modes = call.text("mode", "nearest"), call.text("coordinate_transformation_mode", "half_pixel")
    halves = (
        modes[1] in ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel")
        and call.text("nearest_mode", "round_prefer_floor")[:5] == "round"
    )
    floors = modes[1] == "asymmetric" and call.text("nearest_mode", "round_prefer_floor") == "floor"
    old = call.node.op_type == "Upsample" or tape.opset == 10
    if modes[0] != "nearest" or not (halves or floors or old) or any(b % a for a, b in zip(few, many, strict=True)):
        raise NoGradientError("it does not repeat numbers a whole number of times")
    shape = [size for a, b in zip(few, many, strict=True) for size in (a, b // a)]
    return [tape.reshape(tape.total(tape.reshape(call.grad, shape), [*range(1, len(shape), 2)]), few)]


def expand(call: Call) -> list[str | None]:
    """Expand."""
    return [call.tape.fitted(call.grad, call.shape, call.tape.shape(call.node.input[0]))]


def reduced(call: Call, axes: list[int] | None, *, mean: bool) -> list[str | None]:
    """Sums or means over axes, all of them where there are None."""
    tape, whole = call.tape, call.tape.shape(call.node.input[0])
    over = {axis % len(whole) for axis in axes} if axes else {*range(len(whole))}
    kept = [1 if axis in over else size for axis, size in enumerate(whole)]
    grad = tape.reshape(call.grad, kept)
    if mean:
        grad = tape.op("Mul", grad, tape.number(1 / prod(whole[axis] for axis in over)))
    return [tape.op("Expand", grad, tape.indices(whole))]


def reduce(*, mean: bool) -> Rule:
    """Return the rule of ReduceSum or ReduceMean."""

    def rule(call: Call) -> list[str | None]:
        axes = call.integers("axes", 1)
        if not axes and call.integer("noop_with_empty_axes", 0):
            return [call.grad]
        return reduced(call, axes, mean=mean)

    return rule


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"), same),
    "Cast": cast,
    "Concat": concat,
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "Gather": gather,
    "Pad": pad,
    "ReduceMean": reduce(mean=True),
    "ReduceSum": reduce(mean=False),
    "Resize": resize,
    "Slice": cut,
    "Split": split,
    "Transpose": transpose,
    "Upsample": resize,
}
