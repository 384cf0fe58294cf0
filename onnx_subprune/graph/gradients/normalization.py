"""Gradients of softmaxes, and of normalizations as they are in inference."""

from collections.abc import Callable, Mapping
from math import prod

from onnx_subprune.graph.gradients.tape import Call, NoGradientError, Shape, Tape

Rule = Callable[[Call], list[str | None]]


def _rows(call: Call) -> Shape:
    """The shape in which a softmax runs over the middle axis."""
    shape, late = call.shape, call.tape.opset >= 13
    axis = call.integer("axis", -1 if late else 1) % len(shape)
    return prod(shape[:axis]), shape[axis] if late else prod(shape[axis:]), prod(shape[axis + 1 :]) if late else 1


def softmax(call: Call) -> list[str | None]:
    """Softmax: y (g - sum g y)."""
    tape, rows = call.tape, _rows(call)
    y, g = (tape.reshape(name, rows) for name in (call.node.output[0], call.grad))
    less = tape.op("Sub", g, tape.total(tape.op("Mul", g, y), [1], keep=True))
    return [tape.reshape(tape.op("Mul", y, less), call.shape)]


def log_softmax(call: Call) -> list[str | None]:
    """LogSoftmax: g - exp(y) sum g."""
    tape, rows = call.tape, _rows(call)
    y, g = (tape.reshape(name, rows) for name in (call.node.output[0], call.grad))
    less = tape.op("Mul", tape.op("Exp", y), tape.total(g, [1], keep=True))
    return [tape.reshape(tape.op("Sub", g, less), call.shape)]


def batch_normalization(call: Call) -> list[str | None]:
    """BatchNormalization with the means and variances that it has."""
    tape, (x, scale, _, mean, variance) = call.tape, call.node.input
    if call.integer("training_mode", 0):
        raise NoGradientError("it is in training mode")
    shape = call.shape
    column = (shape[1], *[1] * (len(shape) - 2))
    flat = (*shape[:2], -1)
    spread = tape.op("Sqrt", tape.op("Add", variance, tape.number(call.float("epsilon", 1e-5))))
    found: list[str | None] = [None] * 5
    if call.wants(0):
        found[0] = tape.op("Mul", call.grad, tape.reshape(tape.op("Div", scale, spread), column))
    if call.wants(1):
        apart = tape.op("Sub", x, tape.reshape(mean, column))
        sums = tape.total(tape.reshape(tape.op("Mul", call.grad, apart), flat), [0, 2])
        found[1] = tape.op("Div", sums, spread)
    if call.wants(2):
        found[2] = tape.total(tape.reshape(call.grad, flat), [0, 2])
    return found


def normalized(tape: Tape, x: str, size: int, epsilon: float) -> tuple[str, str]:
    """Return rows (..., `size`) with mean 0 and variance 1, and one over their standard deviations."""
    share = tape.number(1 / size)
    apart = tape.op("Sub", x, tape.op("Mul", tape.total(x, [1], keep=True), share))
    variance = tape.op("Mul", tape.total(tape.op("Mul", apart, apart), [1], keep=True), share)
    inverse = tape.op("Reciprocal", tape.op("Sqrt", tape.op("Add", variance, tape.number(epsilon))))
    return tape.op("Mul", apart, inverse), inverse


def through(tape: Tape, g: str, unit: tuple[str, str], size: int) -> str:
    """Return the gradient of rows before they were `normalized`, from that behind."""
    rows, inverse = unit
    share = tape.number(1 / size)
    mean = tape.op("Mul", tape.total(g, [1], keep=True), share)
    along = tape.op("Mul", tape.total(tape.op("Mul", g, rows), [1], keep=True), share)
    return tape.op("Mul", inverse, tape.op("Sub", tape.op("Sub", g, mean), tape.op("Mul", rows, along)))


def layer_normalization(call: Call) -> list[str | None]:
    """LayerNormalization over the last axes."""
    tape, (x, scale) = call.tape, call.node.input[:2]
    shape = call.shape
    axis = call.integer("axis", -1) % len(shape)
    size, inner = prod(shape[axis:]), shape[axis:]
    rows = (prod(shape[:axis]), size)
    g = tape.reshape(call.grad, rows)
    unit = normalized(tape, tape.reshape(x, rows), size, call.float("epsilon", 1e-5))
    found: list[str | None] = [None] * len(call.node.input)
    wide = (1,) * (len(inner) - len(tape.shape(scale))) + tape.shape(scale)
    if prod(wide) != size:
        raise NoGradientError("its scale is broadcast")
    if call.wants(0):
        scaled = tape.op("Mul", g, tape.reshape(scale, (1, size)))
        found[0] = tape.reshape(through(tape, scaled, unit, size), shape)
    if call.wants(1):
        found[1] = tape.reshape(tape.total(tape.op("Mul", g, unit[0]), [0]), tape.shape(scale))
    if call.wants(2):
        found[2] = tape.reshape(tape.total(g, [0]), tape.shape(call.node.input[2]))
    return found


def instance_normalization(call: Call) -> list[str | None]:
    """InstanceNormalization."""
    tape, (x, scale, _) = call.tape, call.node.input
    batch, channels, *spatial = call.shape
    size, rows = prod(spatial), (batch * channels, prod(spatial))
    unit = normalized(tape, tape.reshape(x, rows), size, call.float("epsilon", 1e-5))
    found: list[str | None] = [None] * 3
    if call.wants(0):
        scaled = tape.op("Mul", tape.reshape(call.grad, (batch, channels, size)), tape.reshape(scale, (channels, 1)))
        found[0] = tape.reshape(through(tape, tape.reshape(scaled, rows), unit, size), call.shape)
    cube = (batch, channels, size)
    if call.wants(1):
        found[1] = tape.total(tape.reshape(tape.op("Mul", tape.reshape(call.grad, rows), unit[0]), cube), [0, 2])
    if call.wants(2):
        found[2] = tape.total(tape.reshape(call.grad, cube), [0, 2])
    return found


RULES: Mapping[str, Rule] = {
    "BatchNormalization": batch_normalization,
    "InstanceNormalization": instance_normalization,
    "LayerNormalization": layer_normalization,
    "LogSoftmax": log_softmax,
    "Softmax": softmax,
}
