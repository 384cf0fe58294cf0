"""Operators that work position by position, with broadcasting.

An operand of size 1 on an axis is used for every position: it does not tie to them.
"""

from collections.abc import Sequence

from onnx_subprune.graph.rules.vocabulary import Rule, Scope

UNARY = [
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitwiseNot",
    "Ceil",
    "Celu",
    "Cos",
    "Cosh",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Not",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
]
BROADCASTING = [
    "Add",
    "And",
    "BitShift",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "PRelu",
    "Pow",
    "Sub",
    "Sum",
    "Where",
    "Xor",
]


def broadcast(scope: Scope, slots: Sequence[int], leading: int = 0) -> None:
    """Tie the axes of inputs `slots`, aligned from the right but for the last `leading` ones, to the output's."""
    shape = scope.out_shape()
    for back in range(leading + 1, len(shape) + 1):
        out = scope.output(-back)
        for slot in slots:
            if back <= len(scope.shape(slot)):
                ids = scope.input(slot, -back)
                if len(ids) == len(out):
                    scope.tie(ids, out)


def pointwise(scope: Scope) -> None:
    """One tensor in, any number of the same shape out (Dropout has a mask); other inputs are scalars."""
    for axis in range(len(scope.out_shape())):
        ids = scope.input(0, axis)
        for which, name in enumerate(scope.node.output):
            if name:
                scope.tie(ids, scope.output(axis, which))


def broadcasting(scope: Scope) -> None:
    """Any number of tensors in, broadcast to one another."""
    broadcast(scope, [slot for slot in range(len(scope.node.input)) if scope.has(slot)])


POINTWISE = (*UNARY, "Cast", "CastLike", "Clip", "Dropout")
POSITIONWISE = frozenset((*POINTWISE, *BROADCASTING))
RULES = {
    **dict.fromkeys(POINTWISE, Rule(pointwise)),
    **dict.fromkeys(BROADCASTING, Rule(broadcasting)),
}
