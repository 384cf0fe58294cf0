"""A recurrent layer as Keras' exporter writes it: a Loop over the steps, between two dense layers."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from onnx_subprune.graph.contractions.recurrent import GATES
from tests.networks.net import Net


class Inner(Net):
    """The builder of a body: its tensors have names of their own."""

    def fresh(self, stem: str) -> str:
        return f"body/{super().fresh(stem)}"


@dataclass(frozen=True)
class Looped:
    """See the module. after: the reset gate of a GRU comes behind the product. apart: one product a gate, in place of one for all.

    steps: fixed, or open. hard: HardSigmoid, written out, or as the operator
    (`spelled`). carried: weights are handed on from step to step, or captured. ones: units are multiplied by the
    ones that dropout leaves. endless: the condition alone ends the Loop. change: the body is made another one.
    """

    op: str
    after: bool = True
    apart: bool = False
    steps: int | None = 5
    hard: bool = False
    spelled: bool = False
    activation: str = "Tanh"
    carried: bool = True
    ones: bool = False
    endless: bool = False
    fixed: float | None = None
    change: str = ""
    features: int = 6
    units: int = 5

    def model(self, opset: int = 17, seed: int = 0) -> ModelProto:
        """Return the network, with weights drawn from `seed`."""
        n = Net(opset, seed=seed)
        self.build(n)
        return n.model()

    def build(self, n: Net) -> None:
        """Draw the network."""
        rows = GATES[self.op] * self.units
        x = n.relu(n.linear(n.input(("N", self.steps or "T", 3)), 3, self.features))
        x = n("Transpose", x, perm=[1, 0, 2])
        steps = n.squeeze(n.dim(x, 0), 0) if self.steps is None else n.constant(np.array(self.steps, np.int64))
        zero = n(
            "Expand", n.constant(np.zeros(1, np.float32)), n.concat(n.dim("x", 0), n.constant([self.units]), axis=0)
        )
        if self.fixed is not None:
            zero = n.constant(np.full((1, self.units), self.fixed, np.float32))
        outer = {"x": x, "T": steps, "W": n.weight(self.features, rows), "R": n.weight(self.units, rows)}
        outer |= {"b": n.weight(rows), "d": n.weight(rows)}
        states = ["h", "c"] if self.op == "LSTM" else ["h"]
        carried = ["T", *(name for name in ("W", "R", "b", "d") if self.carried and name in self._read())]
        one = n("Less", n.constant(np.array(0, np.int64)), steps)
        trips = n.constant(np.array(2**31 - 1 if self.endless else self.steps)) if self.endless or self.steps else steps
        first = n.constant(np.array(1 if self.change == "from the second" else 0, np.int64))
        given = [trips, one, first, *[zero] * len(states), *(outer[name] for name in carried)]
        made = n.add(
            "Loop", *given, outputs=1 + len(states) + len(carried) + 1, body=self._body(states, carried, outer)
        )
        y = n("Transpose", made[-1], perm=[1, 0, 2])
        if self.change == "a counter is read":
            y = n("Add", y, n("Cast", made[0], to=TensorProto.FLOAT))
        last = n.linear(made[1], self.units, 2)
        n.output(n.linear(y, self.units, 2), 3)
        n.output(last, 2)

    def _read(self) -> str:
        return "WRbd" if self.op == "GRU" and self.after else "WRb"

    def _body(self, states: list[str], carried: list[str], outer: dict[str, str]) -> GraphProto:
        n = Inner(17)
        name = {item: f"in_{item}" if item in carried else outer[item] for item in outer}
        index = "t"
        if self.change == "from the last":
            index = n("Sub", n("Sub", name["T"], n.constant(np.array(1, np.int64))), "t")
        x = n("Gather", name["x"], index)
        after = dict(zip(states, self._cell(n, x, name), strict=True))
        if self.change == "drawn at random":
            drawn = n("RandomUniform", shape=[self.units], seed=1.0)
            after = {s: n("Add", new, drawn) if s == "h" else new for s, new in after.items()}
        if self.change == "a mask":
            gate = n("Cast", n("Less", n.constant(np.array(1, np.int64)), "t"), to=TensorProto.FLOAT)
            left = n("Sub", n.constant(np.float32(1)), gate)
            after = {s: n("Add", n("Mul", gate, new), n("Mul", left, s)) for s, new in after.items()}
        following = n("Add", "t", n.constant(np.array(1, np.int64)))
        bound = n("Sub", name["T"], n.constant(np.array(1, np.int64))) if self.change == "one less" else name["T"]
        as_float = [n("Cast", item, to=TensorProto.FLOAT) for item in ("i", following, bound)]
        going = n("And", n("Less", as_float[0], as_float[2]), n("Less", as_float[1], as_float[2]))
        made = [going, following, *(n("Identity", after[s]) for s in states), *(name[item] for item in carried)]
        shown = n("Identity", after["c" if self.change == "cells are put out" else "h"])

        def value(tensor: str, kind: int, rank: int) -> object:
            return helper.make_tensor_value_info(tensor, kind, [None] * rank)

        ranks = {"W": 2, "R": 2, "b": 1, "d": 1, "T": 0}
        handed = [
            value(name[item], TensorProto.INT64 if item == "T" else TensorProto.FLOAT, ranks[item]) for item in carried
        ]
        whole = TensorProto.INT64
        given = [value("i", whole, 0), value("on", TensorProto.BOOL, 0), value("t", whole, 0)]
        given += [value(s, TensorProto.FLOAT, 2) for s in states]
        kinds = [TensorProto.BOOL, whole, *[TensorProto.FLOAT] * len(states)]
        out = [value(item, kind, 0 if i < 2 else 2) for i, (item, kind) in enumerate(zip(made, kinds, strict=False))]
        weights = [numpy_helper.from_array(item, at) for at, item in n.weights.items()]
        out += [*handed, value(shown, TensorProto.FLOAT, 2)]
        return helper.make_graph(n.nodes, "body", [*given, *handed], out, weights)

    def _cell(self, n: Net, x: str, name: dict[str, str]) -> list[str]:
        """What becomes of the states."""
        count, units = GATES[self.op], "h"
        if self.ones:
            one = numpy_helper.from_array(np.ones(1, np.float32))
            units = n("Mul", "h", n("ConstantOfShape", n("Shape", "h"), value=one))

        def columns(tensor: str, which: int) -> str:
            ends = [which * self.units, (which + 1) * self.units]
            return n(
                "Slice",
                tensor,
                *(n.constant(np.array(item, np.int64)) for item in ([0, ends[0]], [2**31 - 1, ends[1]], [0, 1])),
            )

        def part(which: int, bias: bool = True) -> str:
            own = n(
                "Add",
                n("MatMul", x, columns(name["W"], which)),
                n.add("Split", name["b"], outputs=count, axis=0)[which],
            )
            return own if not bias else n("Add", own, n("MatMul", units, columns(name["R"], which)))

        bias = name["b"]
        if self.change == "noise in the gates":
            bias = n("RandomUniform", shape=[count * self.units], seed=1.0)
        data = n("Add", n("MatMul", x, name["W"]), bias)
        parts = n.add("Split", data, outputs=count, axis=-1)
        if self.op == "GRU":
            return [self._gru(n, parts, units, name, columns)]
        if self.apart:
            gates = [part(which) for which in range(count)]
        else:
            whole = n("Add", data, n("MatMul", units, name["R"]))
            gates = n.add("Split", whole, outputs=count, axis=1) if count > 1 else [whole]
        if self.change == "one number for all units":
            column = n("MatMul", x, n.constant(np.ones((self.features, 1), np.float32)))
            return [n(self.activation, n("Add", column, n("MatMul", units, name["R"])))]
        if self.op == "RNN":
            return [n(self.activation, gates[0])]
        i, f, o = (self._gate(n, gates[at]) for at in (0, 1, 3))
        cell = n("Add", n("Mul", f, "c"), n("Mul", i, n(self.activation, gates[2])))
        cell = n("Mul", cell, n.constant(np.float32(0.9))) if self.change == "another cell" else cell
        return [n("Mul", o, n(self.activation, cell)), cell]

    def _gru(
        self, n: Net, parts: list[str], units: str, name: dict[str, str], columns: Callable[[str, int], str]
    ) -> str:
        if self.after:
            inner = n("Add", n("MatMul", units, name["R"]), name["d"])
            own = [columns(inner, which) for which in range(3)]
        else:
            own = [n("MatMul", units, columns(name["R"], which)) for which in range(2)]
        z, r = (self._gate(n, n("Add", parts[at], own[at])) for at in (0, 1))
        before = n("Mul", r, own[2]) if self.after else n("MatMul", n("Mul", r, units), columns(name["R"], 2))
        new = n(self.activation, n("Add", parts[2], before))
        return n("Add", n("Mul", z, "h"), n("Mul", n("Sub", n.constant(np.float32(1)), z), new))

    def _gate(self, n: Net, sums: str) -> str:
        if not self.hard:
            return n("Sigmoid", sums)
        if self.spelled:
            return n("HardSigmoid", sums, alpha=0.25, beta=0.4)
        low, high, third = (n.constant(np.float32(item)) for item in (0, 6, 1 / 6))
        return n("Mul", n("Clip", n("Add", sums, n.constant(np.float32(3))), low, high), third)
