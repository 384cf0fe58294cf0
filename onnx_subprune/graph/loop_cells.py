"""The formulas of recurrent layers, found in the body of a Loop: from states and data at a step to the states at the next.

LSTM   c' = f c + i g,  h' = o act(c')        i, o, f: gates of x W + h R + b;  g: act of it
GRU    h' = z h + (1 - z) n                   n = act(x W + r (h R + b) + ...), or act(x W + (r h) R + ...)
RNN    h' = act(x W + h R + b)

A gate is a Sigmoid, or a HardSigmoid however it is written: a Clip of what is scaled and shifted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any

import numpy as np

from onnx_subprune._typing import Float64
from onnx_subprune.graph.loop_bodies import Affine, Body
from onnx_subprune.graph.operators import attribute

ACTIVATIONS = ("Tanh", "Relu", "Sigmoid", "Softsign")
"""What may be done to states."""
USUAL = {"GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"], "RNN": ["Tanh"]}
"""The activations of operators that do not name theirs."""
CLOSE = 1e-6
"""How far a slope may be off, as a share: 1/6 is written in float32."""


@dataclass(frozen=True, slots=True)
class State:
    """What the body is given at a step, and makes for the next."""

    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Gate:
    """An activation of a sum of products. slope: of a HardSigmoid, whose middle is in the sum."""

    activation: str
    sums: Affine
    slope: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cell:
    """A recurrent layer as its operator has it: weight (gates H, features), recurrence (gates H, H), bias (2 gates H).

    states: the hidden state, and that of the cell.
    """

    operator: str
    weight: Float64
    recurrence: Float64
    bias: Float64
    states: Sequence[State]
    attributes: Mapping[str, Any] = field(default_factory=dict)


def cell_of(body: Body, data: str, states: Sequence[State]) -> Cell | None:
    """Return the layer that makes the states from the tensor `data`, (samples, features), and what they were; None for another."""
    search = _Search(body, data)
    for hidden, *rest in permutations(states):
        found = search.lstm(hidden, rest[0]) if rest else search.gru(hidden) or search.rnn(hidden)
        if found is not None:
            return found
    return None


class _Search:
    def __init__(self, body: Body, data: str) -> None:
        self._body, self._data = body, data
        self._gates: dict[str, Gate | None] = {}

    def lstm(self, hidden: State, cell: State) -> Cell | None:
        """See the module."""
        body = self._body
        for opened, shown in body.orders(hidden.after, "Mul"):
            out, last = self._gate(opened), body.node(shown, *ACTIVATIONS)
            if out is None or last is None or body.source(last.input[0]) != body.source(cell.after):
                continue
            for kept, added in body.orders(cell.after, "Add"):
                forget = self._times(kept, cell.before)
                for one, other in body.orders(added, "Mul"):
                    way, new = self._gate(one), self._activated(other)
                    if forget is not None and way is not None and new is not None:
                        gates = [way, out, forget, new]
                        return self._made("LSTM", gates, [hidden, cell], [new.activation, last.op_type])
        return None

    def gru(self, hidden: State) -> Cell | None:
        """See the module."""
        body = self._body
        for kept, added in body.orders(hidden.after, "Add"):
            update = self._times(kept, hidden.before)
            for rest, new in body.orders(added, "Mul"):
                less, act = body.node(rest, "Sub"), body.node(new, *ACTIVATIONS)
                if update is None or less is None or act is None or body.number(less.input[0]) != 1.0:
                    continue
                if self._gate(less.input[1]) != update:
                    continue
                found = self._reset(act.input[0], hidden)
                if found is not None:
                    reset, candidate, before = found
                    return self._gated(hidden, [update, reset], candidate, before, act.op_type)
        return None

    def rnn(self, hidden: State) -> Cell | None:
        """See the module."""
        found = self._activated(hidden.after)
        return None if found is None else self._made("RNN", [found], [hidden], [found.activation])

    def _gated(
        self, hidden: State, gates: Sequence[Gate], candidate: Affine, before: Affine | None, activation: str
    ) -> Cell | None:
        """A GRU with the sums of its candidate; before: those of units, where the reset gate comes behind their product."""
        sums = candidate if before is None else candidate.plus(before)
        found = None if sums is None else self._made("GRU", [*gates, Gate(activation, sums)], [hidden], [activation])
        if found is None or before is None:
            return found
        bias, units = found.bias.copy(), len(found.recurrence) // 3
        bias[2 * units : 3 * units] = candidate.offset
        bias[5 * units :] = before.offset
        return replace(found, bias=bias, attributes={**found.attributes, "linear_before_reset": 1})

    def _reset(self, name: str, hidden: State) -> tuple[Gate, Affine, Affine | None] | None:
        """The reset gate, the sums that it leaves alone, or all, and those that it multiplies, where these are a product already."""
        body = self._body
        for alone, times in body.orders(name, "Add"):
            rest = body.affine(alone)
            for opened, units in body.orders(times, "Mul"):
                gate, sums = self._gate(opened), body.affine(units)
                if rest is not None and gate is not None and sums is not None and {*sums.terms} == {hidden.before}:
                    return (gate, rest, sums) if {*rest.terms} == {self._data} else None
        whole = body.affine(name)
        for leaf in whole.terms if whole is not None else ():
            for opened, units in body.orders(leaf, "Mul"):
                gate = self._gate(opened)
                if whole is not None and gate is not None and body.source(units) == hidden.before:
                    terms = {(hidden.before if name == leaf else name): item for name, item in whole.terms.items()}
                    return (gate, Affine(terms, whole.offset), None) if len(terms) == len(whole.terms) else None
        return None

    def _times(self, name: str, state: str) -> Gate | None:
        """The gate that a state is multiplied by."""
        found = (self._gate(one) for one, other in self._body.orders(name, "Mul") if self._body.source(other) == state)
        return next((gate for gate in found if gate is not None), None)

    def _activated(self, name: str) -> Gate | None:
        node = self._body.node(name, *ACTIVATIONS)
        sums = None if node is None else self._body.affine(node.input[0])
        return None if node is None or sums is None else Gate(node.op_type, sums)

    def _gate(self, name: str) -> Gate | None:
        """A Sigmoid, or a HardSigmoid: the operator, or s Clip(a, 0, 1 / s); the same object for the same tensor."""
        name = self._body.source(name)
        if name not in self._gates:
            self._gates[name] = self._found(name)
        return self._gates[name]

    def _found(self, name: str) -> Gate | None:
        body = self._body
        plain = body.node(name, "Sigmoid", "HardSigmoid")
        if plain is not None:
            sums = body.affine(plain.input[0])
            if plain.op_type == "HardSigmoid" and sums is not None:
                alpha, beta = attribute(plain, "alpha", 0.2), attribute(plain, "beta", 0.5)
                assert isinstance(alpha, float), "its type says so"
                assert isinstance(beta, float), "its type says so"
                sums = (sums * alpha).plus(Affine({}, np.full(1, beta)))
            return None if sums is None else Gate(plain.op_type, sums, float(plain.op_type == "HardSigmoid"))
        ways: Iterator[tuple[str, float | None]] = iter([(name, 1.0)])
        if body.node(name, "Mul") is not None:
            ways = ((one, body.number(other)) for one, other in body.orders(name, "Mul"))
        for inner, slope in ways:
            clip = body.node(inner, "Clip")
            if clip is None or not slope or len(clip.input) < 3:
                continue
            low, high, sums = body.number(clip.input[1]), body.number(clip.input[2]), body.affine(clip.input[0])
            if low == 0.0 and high is not None and abs(high * slope - 1.0) < CLOSE and sums is not None:
                return Gate("HardSigmoid", sums, slope)
        return None

    def _made(
        self, operator: str, gates: Sequence[Gate], states: Sequence[State], activations: Sequence[str]
    ) -> Cell | None:
        """The layer of gates in the operator's order, of which the last is the candidate; None where they do not read data and units, or differ."""
        hidden, opened = states[0].before, gates[:-1]
        width = gates[0].sums.width
        if any({*gate.sums.terms} != {self._data, hidden} or gate.sums.width != width for gate in gates):
            return None
        if len({(gate.activation, gate.slope) for gate in opened}) > 1:
            return None
        offsets = [np.broadcast_to(gate.sums.offset, (width,)) for gate in gates]
        attributes: dict[str, Any] = {"hidden_size": width}
        used = [*(gate.activation for gate in opened[:1]), *activations]
        if used != USUAL[operator]:
            attributes["activations"] = used
        if opened and opened[0].activation == "HardSigmoid":
            attributes |= {"activation_alpha": [opened[0].slope], "activation_beta": [0.0]}
        return Cell(
            operator=operator,
            weight=np.vstack([gate.sums.terms[self._data].T for gate in gates]),
            recurrence=np.vstack([gate.sums.terms[hidden].T for gate in gates]),
            bias=np.concatenate([*offsets, np.zeros(len(gates) * width)]),
            states=states,
            attributes=attributes,
        )
