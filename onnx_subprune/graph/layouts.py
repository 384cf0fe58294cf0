"""Recurrent layers whose batch comes first (layout = 1): the model is loaded with Transposes around ones whose steps do, which onnxruntime can run.

With layout = 1 the data are (batch, steps, features), the states (batch, d, H), and what is made is (batch, steps, d, H). Where the last states alone
have a name, those of all steps get one, since the layer itself reads them.
"""

from collections.abc import Iterator

from onnx import ModelProto, NodeProto, helper

from onnx_subprune.graph.names import fresh
from onnx_subprune.graph.operators import STANDARD, attribute
from onnx_subprune.graph.order import rewritten

RECURRENT = frozenset(["GRU", "LSTM", "RNN"])
STEPS_FIRST, BATCH_FIRST = (1, 0, 2), (2, 0, 1, 3)
"""Which axes go where: of three, both ways, and of what is made at all steps, back."""
GIVEN = (0, 5, 6)
"""The data and the initial states."""


def steps_first(proto: ModelProto) -> ModelProto:
    """Return the model with all its recurrent layers in the layout 0, and their states named; `proto` itself where they are. It is not changed."""
    if not any(_batch_first(node) or _unnamed(node) for node in proto.graph.node):
        return proto
    taken = {name for node in proto.graph.node for name in (*node.input, *node.output)}
    taken |= {tensor.name for tensor in proto.graph.initializer}
    nodes = list[NodeProto]()
    for given in proto.graph.node:
        node = _named(given, taken) if _unnamed(given) else given
        nodes += _turned(node, taken) if _batch_first(node) else [node]
    return rewritten(proto, nodes, [])


def _unnamed(node: NodeProto) -> bool:
    """True for a layer of which nothing but last states has a name."""
    return node.op_type in RECURRENT and node.domain in STANDARD and not node.output[0] and any(node.output)


def _named(node: NodeProto, taken: set[str]) -> NodeProto:
    """Return the node with a name for the states of all steps."""
    found = NodeProto()
    found.CopyFrom(node)
    found.output[0] = fresh(taken, f"{next(filter(None, node.output))}/all_steps")
    return found


def _batch_first(node: NodeProto) -> bool:
    return node.op_type in RECURRENT and node.domain in STANDARD and bool(attribute(node, "layout", 0))


def _turned(node: NodeProto, taken: set[str]) -> Iterator[NodeProto]:
    """Yield the node in the other layout, and the Transposes before and behind it."""
    found = NodeProto()
    found.CopyFrom(node)
    for item in [item for item in found.attribute if item.name == "layout"]:
        found.attribute.remove(item)
    for slot in GIVEN:
        if slot < len(node.input) and node.input[slot]:
            found.input[slot] = fresh(taken, f"{node.input[slot]}/steps_first")
            yield helper.make_node("Transpose", [node.input[slot]], [found.input[slot]], perm=STEPS_FIRST)
    behind = []
    for which, name in enumerate(node.output):
        if name:
            found.output[which] = fresh(taken, f"{name}/steps_first")
            order = STEPS_FIRST if which else BATCH_FIRST
            behind.append(helper.make_node("Transpose", [found.output[which]], [name], perm=order))
    yield found
    yield from behind
