"""GroupNormalization of one group, as opset 21 has it, in the nodes that PyTorch wrote before: see `flattened`. Runtimes take it apart as well."""

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_subprune.graph.flattened import ONE_GROUP
from onnx_subprune.graph.operators import STANDARD, integer
from onnx_subprune.graph.order import rewritten
from onnx_subprune.graph.stored import Stored

SINCE, MOST = 21, 1 << 16
"""The opset that has a scale for each channel, and channels at most."""


def written_out(proto: ModelProto) -> ModelProto:
    """Return the model with such normalisations in elementary nodes; `proto` itself where there are none. It is not changed."""
    opset = max((item.version for item in proto.opset_import if item.domain in STANDARD), default=1)
    ones = [
        node
        for node in proto.graph.node
        if node.op_type == "GroupNormalization" and integer(node, "num_groups", 0) == 1
    ]
    if opset < SINCE or not ones:
        return proto
    known, constants = Stored(proto), list[TensorProto]()
    found = {node.output[0]: parts for node in ones if (parts := _parts(node, known, constants))}
    nodes = [
        part for node in proto.graph.node for part in (found.get(node.output[0]) if node.output else None) or [node]
    ]
    return rewritten(proto, nodes, constants) if found else proto


def _parts(node: NodeProto, known: Stored, constants: list[TensorProto]) -> list[NodeProto]:
    """What the normalisation does, in order, with its constants added to these; nothing where its scale or its number of axes is not known."""
    x, y, rank = node.input[0], node.output[0], known.rank(node.input[0])
    given = [known.small(name, MOST) for name in node.input[1:3]]
    if rank < 3 or any(value is None or value.dtype not in (np.float32, np.float64) for value in given):
        return []

    def constant(name: str, value: object) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value), f"{y}/{name}"))
        return f"{y}/{name}"

    dtype = given[0].dtype if given[0] is not None else np.float32
    spread = [value.reshape(-1, *(1,) * (rank - 2)) for value in given if value is not None]
    one, zero = constant("one", np.ones(1, dtype)), constant("zero", np.zeros(1, dtype))
    epsilon = next((item.f for item in node.attribute if item.name == "epsilon"), 1e-5)
    return [
        helper.make_node("Reshape", [x, constant("flat", np.array(ONE_GROUP))], [f"{y}/group"], name=f"{y}/group"),
        helper.make_node(
            "InstanceNormalization", [f"{y}/group", one, zero], [f"{y}/normal"], name=node.name, epsilon=epsilon
        ),
        helper.make_node("Shape", [x], [f"{y}/sizes"], name=f"{y}/sizes"),
        helper.make_node("Reshape", [f"{y}/normal", f"{y}/sizes"], [f"{y}/back"], name=f"{y}/back"),
        helper.make_node("Mul", [f"{y}/back", constant("scale", spread[0])], [f"{y}/scaled"], name=f"{y}/scaled"),
        helper.make_node("Add", [f"{y}/scaled", constant("shift", spread[1])], [y], name=f"{y}/shifted"),
    ]
