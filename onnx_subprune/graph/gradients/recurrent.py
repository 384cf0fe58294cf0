"""Gradients of recurrent layers.

X (T, N, I), W (D, g H, I), R (D, g H, H), B (D, 2 g H), states (D, N, H), Y (T, D, N, H), with g gates and D directions.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from onnx import NodeProto

from onnx_subprune.graph.gradients.tape import Call, NoGradientError, Tape
from onnx_subprune.graph.gradients.through_time import (
    BIAS,
    CELL,
    DATA,
    HIDDEN,
    LENGTHS,
    PEEPHOLES,
    RECURRENCE,
    WEIGHT,
    Way,
    gru,
    lstm,
    rnn,
)
from onnx_subprune.graph.operators import attribute

Rule = Callable[[Call], list[str | None]]
ACTIVATIONS = {"GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"], "RNN": ["Tanh"]}
GATES = {"GRU": 3, "LSTM": 4, "RNN": 1}


def recurrent(call: Call) -> list[str | None]:
    """All three, direction by direction."""
    tape, node = call.tape, call.node
    ways = tape.shape(node.input[WEIGHT])[0]
    _check(call, ways)
    steps, batch, _ = tape.shape(node.input[DATA])
    size = tape.shape(node.input[RECURRENCE])[2]
    sizes = (steps, batch, size)
    states = node.output[0] or _states(call)
    zero = tape.constant(np.zeros((batch, size), np.float32))
    found: list[dict[int, str]] = []
    for number in range(ways):
        way = _way(call, number, states, sizes, zero)
        state = _last(call, 1, number, zero)
        if node.op_type == "LSTM":
            start = _part(tape, node.input[CELL], number, (batch, size)) if call.has(CELL) else zero
            found.append(lstm(way, state, start, _last(call, 2, number, zero)))
        elif node.op_type == "GRU":
            found.append(gru(way, state, late=bool(call.integer("linear_before_reset", 0))))
        else:
            found.append(rnn(way, state))
    return [_joined(call, slot, [item.get(slot) for item in found]) for slot in range(len(node.input))]


def _check(call: Call, ways: int) -> None:
    """Raise NoGradientError for what the formulas do not have."""
    kinds = attribute(call.node, "activations")
    names = [item.decode() for item in kinds] if isinstance(kinds, list) else None
    if names not in (None, ACTIVATIONS[call.node.op_type] * ways):
        raise NoGradientError("its activations are others than usual")
    if attribute(call.node, "clip") is not None or call.integer("input_forget", 0):
        raise NoGradientError("it clips, couples gates, or has the batch first")
    if call.has(LENGTHS) or call.has(PEEPHOLES):
        raise NoGradientError("its sequences have lengths, or its gates see the cells")


def _states(call: Call) -> str:
    """All states, where the model has no name for them."""
    node = NodeProto()
    node.CopyFrom(call.node)
    attributes = {item.name: attribute(node, item.name) for item in node.attribute}
    return call.tape.op(node.op_type, *node.input, **attributes)


def _way(call: Call, number: int, states: str, sizes: tuple[int, int, int], zero: str) -> Way:
    tape, node = call.tape, call.node
    steps, batch, size = sizes
    wide = GATES[node.op_type] * size
    back = call.text("direction", "forward") == "reverse" or number == 1
    own = tape.reshape(tape.cut(states, [1], [number], [number + 1]), sizes)
    start = _part(tape, node.input[HIDDEN], number, (batch, size)) if call.has(HIDDEN) else zero
    start = tape.reshape(start, (1, batch, size))
    if steps == 1:
        before = start
    elif back:
        before = tape.op("Concat", tape.cut(own, [0], [1], [steps]), start, axis=0)
    else:
        before = tape.op("Concat", start, tape.cut(own, [0], [0], [steps - 1]), axis=0)
    biases = _part(tape, node.input[BIAS], number, (2 * wide,)) if call.has(BIAS) else None
    grad = call.grads[0]
    features = tape.shape(node.input[DATA])[2]
    return Way(
        tape=tape,
        sizes=sizes,
        x=tape.reshape(node.input[DATA], (steps * batch, features)),
        w=_part(tape, node.input[WEIGHT], number, (wide, features)),
        r=_part(tape, node.input[RECURRENCE], number, (wide, size)),
        inner=None if biases is None else tape.cut(biases, [0], [0], [wide]),
        outer=None if biases is None else tape.cut(biases, [0], [wide], [2 * wide]),
        before=tape.reshape(before, (steps * batch, size)),
        grad=tape.constant(np.zeros(sizes, np.float32))
        if grad is None
        else tape.reshape(tape.cut(grad, [1], [number], [number + 1]), sizes),
        back=back,
    )


def _part(tape: Tape, tensor: str, number: int, shape: tuple[int, ...]) -> str:
    """One direction of a tensor that has these on its first axis."""
    return tape.reshape(tape.cut(tensor, [0], [number], [number + 1]), shape)


def _last(call: Call, which: int, number: int, zero: str) -> str:
    """The gradient of a final state (N, H) of one direction."""
    grad = call.grads[which] if which < len(call.grads) else None
    return zero if grad is None else _part(call.tape, grad, number, call.tape.shape(call.node.output[which])[1:])


def _joined(call: Call, slot: int, parts: Sequence[str | None]) -> str | None:
    """Gradients of both directions as one: summed for the data, which both read."""
    given = [part for part in parts if part is not None]
    if not call.wants(slot) or not given:
        return None
    if slot == DATA:
        summed = given[0] if len(given) == 1 else call.tape.op("Sum", *given)
        return call.tape.reshape(summed, call.tape.shape(call.node.input[DATA]))
    shape = call.tape.shape(call.node.input[slot])
    each = [call.tape.reshape(part, (1, *shape[1:])) for part in given]
    return each[0] if len(each) == 1 else call.tape.op("Concat", *each, axis=0)


RULES: Mapping[str, Rule] = dict.fromkeys(ACTIVATIONS, recurrent)
