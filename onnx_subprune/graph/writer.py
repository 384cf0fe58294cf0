"""Nodes that a normalisation is spelled out in, and what is known of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import NodeProto, helper

from onnx_subprune._typing import Array
from onnx_subprune.graph.normalization import Closed, Normalization


@dataclass(slots=True, eq=False, kw_only=True)
class Writer:
    """Collects nodes and constants for a model of an opset. added: constants that the file does not have, by name."""

    opset: int
    nodes: list[NodeProto] = field(default_factory=list)
    added: dict[str, Array] = field(default_factory=dict)
    normalizations: list[Normalization] = field(default_factory=list)
    closed: list[Closed] = field(default_factory=list)

    def add(self, operator: str, inputs: Sequence[str], made: str, name: str = "", **attributes: object) -> str:
        """Add a node with one output, named after what it makes where it has no `name`; return what it makes."""
        self.nodes.append(helper.make_node(operator, list(inputs), [made], name=name or made, **attributes))  # type: ignore[arg-type]
        return made

    def constant(self, name: str, value: Array) -> str:
        """Add a constant; return its name."""
        self.added[name] = value
        return name

    def sum(self, tensor: str, axis: int, made: str, name: str = "", keep: int = 1) -> None:
        """Add a sum over one axis."""
        if self.opset < 13:
            self.add("ReduceSum", [tensor], made, name, axes=[axis], keepdims=keep)
        else:
            axes = self.constant(f"{made}/axes", np.array([axis], np.int64))
            self.add("ReduceSum", [tensor, axes], made, name, keepdims=keep)

    def average(self, axes: Sequence[int], tensor: str, made: str) -> str:
        """Add a mean over some axes, which stay with one place; return what it makes."""
        if self.opset < 18:
            return self.add("ReduceMean", [tensor], made, axes=list(axes), keepdims=1)
        given = self.constant(f"{made}/axes", np.array(axes, np.int64))
        return self.add("ReduceMean", [tensor, given], made, keepdims=1)
