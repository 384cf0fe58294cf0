"""Casts to the type of another tensor, written when a model is loaded as casts to that type: what is a constant but for its type is one then.

Functions of onnxscript, and what JAX's exporter makes, have CastLike(epsilon, x) for every number.
"""

from onnx import ModelProto, NodeProto, TensorProto, helper

from onnx_subprune.graph.operators import STANDARD
from onnx_subprune.graph.order import rewritten
from onnx_subprune.graph.stored import Stored


def cast(proto: ModelProto) -> ModelProto:
    """Return the model with such casts; `proto` itself where there are none whose type is known. It is not changed."""
    likes = [node for node in proto.graph.node if node.op_type == "CastLike" and node.domain in STANDARD]
    if not likes:
        return proto
    kinds = Stored(proto).kinds()
    found = {
        node.output[0]: _cast(node, kind, kinds.get(node.input[0]))
        for node in likes
        if (kind := kinds.get(node.input[1], TensorProto.UNDEFINED))
    }
    nodes = [found.get(node.output[0], node) if node.output else node for node in proto.graph.node]
    return rewritten(proto, nodes, []) if found else proto


def _cast(node: NodeProto, kind: int, before: int | None) -> NodeProto:
    if kind == before:
        return helper.make_node("Identity", [node.input[0]], list(node.output), name=node.name)
    return helper.make_node("Cast", [node.input[0]], list(node.output), name=node.name, to=kind)
