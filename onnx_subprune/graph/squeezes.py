"""A Squeeze that does not say which axes it takes: the model is loaded with those that have one size, of which declared sizes tell.

What exporters write for `x.squeeze()` behind a pooling, (N, C, 1, 1), is (N, C) for many samples and (C,) for a single one. While a model is pruned and
judged its samples come in chunks of any size, one as well, and its axes have to stay where they are. What is written has the Squeeze of the file again.
"""

from collections.abc import Collection

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from onnx_subprune.graph.names import fresh
from onnx_subprune.graph.operators import STANDARD
from onnx_subprune.graph.order import rewritten
from onnx_subprune.graph.stored import Stored

AS_INPUT = 13
"""The opset from which on axes are an input."""


def with_axes(proto: ModelProto, opset: int) -> tuple[ModelProto, frozenset[str]]:
    """Return the model with such axes, and what these Squeezes make; `proto` itself where it has none. It is not changed."""
    silent = [node for node in proto.graph.node if _silent(node)]
    known = Stored(proto) if silent else None
    found = {node.output[0]: axes for node in silent if known is not None and (axes := _axes(known, node.input[0]))}
    if not found or (opset >= AS_INPUT and proto.ir_version < 4):  # every constant had to be an input then
        return proto, frozenset()
    taken = {name for node in proto.graph.node for name in (*node.input, *node.output)}
    taken |= {tensor.name for tensor in proto.graph.initializer}
    nodes, constants = list[NodeProto](), []
    for node in proto.graph.node:
        if not _silent(node) or node.output[0] not in found:
            nodes.append(node)
            continue
        nodes.append(NodeProto())
        nodes[-1].CopyFrom(node)
        axes = found[node.output[0]]
        if opset < AS_INPUT:
            nodes[-1].attribute.append(helper.make_attribute("axes", axes))
        else:
            name = fresh(taken, f"{node.output[0]}/axes")
            constants.append(numpy_helper.from_array(np.array(axes, np.int64), name))
            nodes[-1].input[:] = [node.input[0], name]
    return rewritten(proto, nodes, constants), frozenset(found)


def without_axes(proto: ModelProto, made: Collection[str]) -> ModelProto:
    """Return the model with the Squeezes that make these as files have them; `proto` itself where there are none. It is not changed."""
    if not made:
        return proto
    nodes = list[NodeProto]()
    for node in proto.graph.node:
        nodes.append(node)
        if node.op_type == "Squeeze" and node.output[0] in made:
            nodes[-1] = helper.make_node("Squeeze", [node.input[0]], [node.output[0]], name=node.name)
    return rewritten(proto, nodes, [])


def _silent(node: NodeProto) -> bool:
    """True for a Squeeze that says nothing of axes."""
    squeezes = node.op_type == "Squeeze" and node.domain in STANDARD and not node.attribute
    return squeezes and bool(node.input and node.output) and not any(node.input[1:])


def _axes(known: Stored, name: str) -> list[int]:
    """The axes of one size where that of samples alone is open, else none."""
    first, *others = known.sizes(name) or (1,)
    return [index for index, size in enumerate(others, 1) if size == 1] if first is None and None not in others else []
