"""A Split of a layer's channels in the place of a Reshape that takes parts of them apart; see `packed`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_subprune.graph.names import fresh
from onnx_subprune.graph.operators import STANDARD
from onnx_subprune.graph.order import rewritten

SPLIT_AS_INPUT = 13
"""The opset since which Split has the sizes of its parts as an input."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed layer: the Reshape, the parts, where their axis is, the target of each part, and what is made of which part.

    target: numbers, or None where they have to be taken of the target of the Reshape. order: of the Transpose. gone: nodes that go.
    """

    reshape: NodeProto
    parts: int
    width: int
    place: int
    target: tuple[int, ...] | None
    order: tuple[int, ...]
    made: tuple[tuple[str, int], ...]
    gone: tuple[NodeProto, ...]


def split(proto: ModelProto, plans: Sequence[Packed]) -> ModelProto:
    """Return the model with all plans carried out."""
    taken = {name for node in proto.graph.node for name in (*node.input, *node.output)}
    taken |= {tensor.name for tensor in proto.graph.initializer} | {value.name for value in proto.graph.input}
    opset = max((item.version for item in proto.opset_import if item.domain in STANDARD), default=1)
    writer = _Writer(taken, opset)
    begun = {plan.reshape.output[0]: plan for plan in plans}
    gone = {name for plan in plans for node in plan.gone for name in node.output}
    nodes = list[NodeProto]()
    for node in proto.graph.node:
        if node.output[0] in begun:
            nodes += writer.nodes(begun[node.output[0]])
        elif node.output[0] not in gone:
            nodes.append(node)
    return rewritten(proto, nodes, writer.constants)


class _Writer:
    """Makes nodes and constants with names of their own."""

    def __init__(self, taken: set[str], opset: int) -> None:
        self._taken, self._opset = taken, opset
        self.constants: list[TensorProto] = []

    def nodes(self, plan: Packed) -> list[NodeProto]:
        """Return the nodes in the place of a packed layer's Reshape."""
        source, label = plan.reshape.input[0], plan.reshape.name
        parts = [fresh(self._taken, f"{source}/part_{number}") for number in range(plan.parts)]
        sizes = [plan.width] * plan.parts
        if self._opset < SPLIT_AS_INPUT:
            made = [helper.make_node("Split", [source], parts, name=label, axis=-1, split=sizes)]
        else:
            made = [helper.make_node("Split", [source, self._constant(source, sizes)], parts, name=label, axis=-1)]
        if plan.target is None:
            target = fresh(self._taken, f"{source}/target")
            places = [place for place in range(len(plan.order) + 1) if place != plan.place]
            made.append(helper.make_node("Gather", [plan.reshape.input[1], self._constant(source, places)], [target]))
        else:
            target = self._constant(source, plan.target)
        turned = plan.order != tuple(range(len(plan.order)))
        for name, which in plan.made:
            inner = fresh(self._taken, f"{name}/heads") if turned else name
            made.append(helper.make_node("Reshape", [parts[which], target], [inner]))
            if plan.target is None:
                made[-1].attribute.extend(plan.reshape.attribute)  # whether zeros are sizes
            if turned:
                made.append(helper.make_node("Transpose", [inner], [name], perm=plan.order))
        return made

    def _constant(self, stem: str, numbers: Sequence[int]) -> str:
        name = fresh(self._taken, f"{stem}/sizes")
        self.constants.append(numpy_helper.from_array(np.array(numbers, np.int64), name))
        return name
