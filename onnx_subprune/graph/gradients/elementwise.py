"""Gradients of operators that work number by number."""

from collections.abc import Callable, Mapping

import numpy as np

from onnx_subprune.graph.gradients.tape import Call, NoGradientError

Rule = Callable[[Call], list[str | None]]
Derivative = Callable[[Call, str, str], str]
"""From a call, its input and its output to the derivative, of the same shape."""


def relu(call: Call, x: str, y: str) -> str:
    """Relu: 1 above zero."""
    return call.tape.mask(call.tape.op("Greater", y, call.tape.number(0)))


def _sided(call: Call, x: str, below: str) -> str:
    """1 above zero, else `below`."""
    return call.tape.op("Where", call.tape.op("Greater", x, call.tape.number(0)), call.tape.number(1), below)


def leaky(call: Call, x: str, y: str) -> str:
    """LeakyRelu."""
    return _sided(call, x, call.tape.number(call.float("alpha", 0.01)))


def elu(call: Call, x: str, y: str) -> str:
    """Elu, whose negative part is alpha (exp x - 1)."""
    return _sided(call, x, call.tape.op("Add", y, call.tape.number(call.float("alpha", 1.0))))


def clip(call: Call, x: str, y: str) -> str:
    """Clip: 1 where nothing is clipped."""
    tape = call.tape
    if tape.opset >= 11:
        return tape.mask(tape.op("Equal", x, y))
    return tape.op("Sub", tape.number(1), tape.op("Sign", tape.op("Abs", tape.op("Sub", x, y))))


def sigmoid(call: Call, x: str, y: str) -> str:
    """Sigmoid: y (1 - y)."""
    return call.tape.op("Mul", y, call.tape.op("Sub", call.tape.number(1), y))


def tanh(call: Call, x: str, y: str) -> str:
    """Tanh: 1 - y²."""
    return call.tape.op("Sub", call.tape.number(1), call.tape.op("Mul", y, y))


def erf(call: Call, x: str, y: str) -> str:
    """Erf: 2 / sqrt(pi) exp(-x²)."""
    tape = call.tape
    bell = tape.op("Exp", tape.op("Neg", tape.op("Mul", x, x)))
    return tape.op("Mul", bell, tape.number(2 / np.sqrt(np.pi)))


def gelu(call: Call, x: str, y: str) -> str:
    """Gelu: Phi(x) + x phi(x)."""
    tape = call.tape
    if call.text("approximate", "none") != "none":
        raise NoGradientError("it is approximated by tanh")
    half = tape.op("Mul", x, tape.number(np.sqrt(0.5)))
    below = tape.op("Mul", tape.op("Add", tape.op("Erf", half), tape.number(1)), tape.number(0.5))
    bell = tape.op(
        "Mul", tape.op("Exp", tape.op("Neg", tape.op("Mul", half, half))), tape.number(1 / np.sqrt(2 * np.pi))
    )
    return tape.op("Add", below, tape.op("Mul", x, bell))


def hard_sigmoid(call: Call, x: str, y: str) -> str:
    """HardSigmoid: alpha between 0 and 1."""
    tape = call.tape
    inside = tape.op("And", tape.op("Greater", y, tape.number(0)), tape.op("Less", y, tape.number(1)))
    return tape.op("Mul", tape.mask(inside), tape.number(call.float("alpha", 0.2)))


def hard_swish(call: Call, x: str, y: str) -> str:
    """HardSwish: 0 below -3, 1 above 3, x / 3 + 1 / 2 in between."""
    tape = call.tape
    inside = tape.mask(tape.op("Less", tape.op("Abs", x), tape.number(3)))
    above = relu(call, x, tape.op("Sub", x, tape.number(3)))
    line = tape.op("Add", tape.op("Mul", x, tape.number(1 / 3)), tape.number(0.5))
    return tape.op("Add", tape.op("Mul", inside, line), above)


DERIVATIVES: Mapping[str, Derivative] = {
    "Abs": lambda call, x, y: call.tape.op("Sign", x),
    "Clip": clip,
    "Elu": elu,
    "Erf": erf,
    "Exp": lambda call, x, y: y,
    "Gelu": gelu,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": hard_swish,
    "LeakyRelu": leaky,
    "Log": lambda call, x, y: call.tape.op("Reciprocal", x),
    "Reciprocal": lambda call, x, y: call.tape.op("Neg", call.tape.op("Mul", y, y)),
    "Relu": relu,
    "Sigmoid": sigmoid,
    "Softplus": lambda call, x, y: call.tape.op("Sigmoid", x),
    "Sqrt": lambda call, x, y: call.tape.op("Mul", call.tape.op("Reciprocal", y), call.tape.number(0.5)),
    "Tanh": tanh,
    "com.microsoft.Gelu": gelu,
}
"""By operator."""


def _unary(derivative: Derivative) -> Rule:
    def rule(call: Call) -> list[str | None]:
        found = derivative(call, call.node.input[0], call.node.output[0])
        return [call.tape.op("Mul", call.grad, found)]

    return rule


def _each(call: Call, parts: list[str | None]) -> list[str | None]:
    """Parts in the shape of the output, summed to those of the inputs."""
    shapes = [call.tape.shape(name) for name in call.node.input]
    return [
        None if part is None else call.tape.fitted(part, call.shape, shape)
        for part, shape in zip(parts, shapes, strict=True)
    ]


def add(call: Call) -> list[str | None]:
    """Add and Sum."""
    return _each(call, [call.grad if call.wants(slot) else None for slot in range(len(call.node.input))])


def sub(call: Call) -> list[str | None]:
    """Sub."""
    second = call.tape.op("Neg", call.grad) if call.wants(1) else None
    return _each(call, [call.grad if call.wants(0) else None, second])


def mul(call: Call) -> list[str | None]:
    """Mul."""
    a, b = call.node.input
    found = [call.tape.op("Mul", call.grad, other) if call.wants(slot) else None for slot, other in enumerate((b, a))]
    return _each(call, [*found])


def div(call: Call) -> list[str | None]:
    """Div: the second gradient is that of the first times -y."""
    tape, first = call.tape, call.tape.op("Div", call.grad, call.node.input[1])
    second = tape.op("Neg", tape.op("Mul", first, call.node.output[0])) if call.wants(1) else None
    return _each(call, [first if call.wants(0) else None, second])


def power(call: Call) -> list[str | None]:
    """Pow with an exponent that is not learned."""
    tape, (a, b) = call.tape, call.node.input
    if call.wants(1):
        raise NoGradientError("its exponent is computed")
    if tape.opset >= 12 and tape.seen[b].value is not None:  # the exponent may be an integer tensor
        b = tape.op("Cast", b, to=1)
    less = tape.op("Pow", a, tape.op("Sub", b, tape.number(1)))
    return _each(call, [tape.op("Mul", call.grad, tape.op("Mul", b, less)), None])


def chosen(call: Call) -> list[str | None]:
    """Max and Min: to the inputs that are the result."""
    tape, y = call.tape, call.node.output[0]
    if tape.opset < 11:
        raise NoGradientError(f"opset {tape.opset} compares no numbers; convert the model to 11 or newer")
    found: list[str | None] = [
        tape.op("Mul", call.grad, tape.mask(tape.op("Equal", name, y))) if call.wants(slot) else None
        for slot, name in enumerate(call.node.input)
    ]
    return _each(call, found)


def where(call: Call) -> list[str | None]:
    """Where."""
    tape, zero = call.tape, call.tape.number(0)
    condition = call.node.input[0]
    first = tape.op("Where", condition, call.grad, zero) if call.wants(1) else None
    second = tape.op("Where", condition, zero, call.grad) if call.wants(2) else None
    return _each(call, [None, first, second])


def prelu(call: Call) -> list[str | None]:
    """PRelu."""
    tape, (x, slope) = call.tape, call.node.input
    negative = tape.op("Less", x, tape.number(0))
    first = tape.op("Mul", call.grad, tape.op("Where", negative, slope, tape.number(1))) if call.wants(0) else None
    second = tape.op("Where", negative, tape.op("Mul", call.grad, x), tape.number(0)) if call.wants(1) else None
    return _each(call, [first, second])


RULES: Mapping[str, Rule] = {
    **{name: _unary(derivative) for name, derivative in DERIVATIVES.items()},
    "Add": add,
    "Div": div,
    "Max": chosen,
    "Min": chosen,
    "Mul": mul,
    "Neg": lambda call: [call.tape.op("Neg", call.grad)],
    "PRelu": prelu,
    "Pow": power,
    "Sub": sub,
    "Sum": add,
    "Where": where,
}
