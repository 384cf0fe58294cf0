"""A dense layer, a recurrent one of any kind, and a dense one behind it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, numpy_helper

from onnx_subprune.graph.contractions.recurrent import GATES
from tests.networks.net import Net

STATES = ("none", "given", "filled", "expanded")
"""Initial states: none, constants, and what exporters compute from the number of samples."""


@dataclass(frozen=True)
class Recurrent:
    """See the module. reset: linear_before_reset of a GRU. last: the last states alone are read, and nothing else has a name.

    batch_first: the layout 1. joined: how both directions become one axis, by a Reshape, or taken apart and put together by a Concat.
    """

    op: str
    direction: str = "forward"
    states: str = "none"
    reset: int = 0
    bias: bool = True
    peepholes: bool = False
    lengths: bool = False
    last: bool = False
    joined: str = "Reshape"
    batch_first: bool = False
    extra: Mapping[str, object] = field(default_factory=dict)
    features: int = 6
    units: int = 5
    steps: int = 4

    def model(self, seed: int = 0, opset: int = 17) -> ModelProto:
        """Return the network, with weights drawn from `seed`."""
        n, directions = Net(opset, seed=seed), 2 if self.direction == "bidirectional" else 1
        count = 3 if self.states == "given" or self.lengths else "N"
        x = n.relu(n.linear(n.input((count, self.steps, 3)), 3, self.features))
        rows = GATES[self.op] * self.units
        if not self.batch_first:
            x = n("Transpose", x, perm=[1, 0, 2])
        inputs = [x, n.weight(directions, rows, self.features), n.weight(directions, rows, self.units)]
        inputs.append(n.weight(directions, 2 * rows) if self.bias else "")
        inputs.append(n.constant(np.array([4, 2, 3], np.int32)) if self.lengths else "")
        cell = self.op == "LSTM"
        inputs += [self._state(n, directions) for _ in range(1 + cell)]
        if self.peepholes:
            inputs.append(n.weight(directions, 3 * self.units))
        options = {"hidden_size": self.units, "direction": self.direction, **self.extra}
        if self.op == "GRU":
            options["linear_before_reset"] = self.reset
        if self.batch_first:
            options["layout"] = 1
        made = n.add(self.op, *inputs, outputs=2 + cell, **options)  # type: ignore[arg-type]
        width = directions * self.units
        if self.last:
            n.nodes[-1].output[:] = ["", made[1]]
            y = n.reshape(made[1] if self.batch_first else n("Transpose", made[1], perm=[1, 0, 2]), 0, width)
        elif self.batch_first:
            y = n.reshape(made[0], 0, 0, width)
        elif self.joined == "Concat":
            y = n.concat(*(n.squeeze(n.slice(made[0], at, at + 1, 1), 1) for at in range(directions)), axis=2)
        else:
            y = n.reshape(n("Transpose", made[0], perm=[0, 2, 1, 3]), 0, 0, width)
        n.output(n.linear(y, width, 2), 2 if self.last else 3)
        return n.model()

    def _state(self, n: Net, directions: int) -> str:
        if self.states == "none":
            return ""
        order = [1, 0, 2] if self.batch_first else [0, 1, 2]
        if self.states == "given":
            return n.weight(*np.array([directions, 3, self.units])[order])
        sizes = n.constant(np.array([directions])), n.dim("x", 0), n.constant(np.array([self.units]))
        shape = n.concat(*(sizes[place] for place in order), axis=0)
        if self.states == "expanded":
            return n("Expand", n.weight(*np.array([directions, 1, self.units])[order]), shape)
        return n("ConstantOfShape", shape)


def saturated(case: Recurrent, seed: int = 0) -> ModelProto:
    """The network with recurrent weights so large that gates shut."""
    model = case.model(seed=seed)
    (layer,) = (node for node in model.graph.node if node.op_type == case.op)
    for item in model.graph.initializer:
        if item.name in layer.input[1:3]:
            item.CopyFrom(numpy_helper.from_array(np.float32(4.0) * numpy_helper.to_array(item), item.name))
    return model
