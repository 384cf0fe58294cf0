"""A model put together again: other nodes and constants in the frame of the old one, which keeps all that did not change."""

from collections.abc import Mapping, Sequence

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from onnx_subprune._typing import Array
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.order import captured


def assemble(
    network: Network, nodes: Sequence[NodeProto], constants: Mapping[str, Array], stale: set[str]
) -> ModelProto:
    """Return the model of `network` with these nodes.

    constants: new ones by name, in the place of initializers of the same name. stale: tensors whose declared shapes no longer hold.
    Initializers that were read before and are not any more are left out.
    """
    model = ModelProto()
    for descriptor, value in network.proto.ListFields():
        if descriptor.name not in ("graph", "functions"):
            _copy(model, descriptor.name, value)
    graph = model.graph
    for descriptor, value in network.proto.graph.ListFields():
        if descriptor.name not in ("node", "initializer", "value_info", "input"):
            _copy(graph, descriptor.name, value)
    graph.node.extend(nodes)
    read = {name for node in nodes for name in (*node.input, *captured(node))} | set(network.outputs)
    unread = {name for node in network.nodes for name in (*node.input, *captured(node))} - read
    known = {name for node in nodes for name in node.output} | read
    graph.value_info.extend(v for v in network.proto.graph.value_info if v.name in known and v.name not in stale)
    _add_constants(graph, network, constants, unread)
    _add_inputs(graph, network, constants, unread)
    return model


def _add_constants(graph: GraphProto, network: Network, constants: Mapping[str, Array], unread: set[str]) -> None:
    for name, tensor in network.initializers.items():
        if name in constants:
            made = graph.initializer.add()
            made.CopyFrom(numpy_helper.from_array(constants[name], name))
            made.doc_string = tensor.doc_string
            made.metadata_props.extend(tensor.metadata_props)
        elif name not in unread:
            graph.initializer.append(tensor)
    for name, value in constants.items():
        if name not in network.initializers:
            graph.initializer.append(numpy_helper.from_array(value, name))


def _add_inputs(graph: GraphProto, network: Network, constants: Mapping[str, Array], unread: set[str]) -> None:
    for value in network.proto.graph.input:
        if value.name in constants:
            kind = value.type.tensor_type.elem_type or TensorProto.FLOAT
            graph.input.append(onnx.helper.make_tensor_value_info(value.name, kind, constants[value.name].shape))
        elif value.name not in network.initializers or value.name not in unread:
            graph.input.append(value)
    if network.proto.ir_version < 4:  # every initializer had to be an input then
        for name, array in constants.items():
            if name not in network.initializers:
                kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
                graph.input.append(onnx.helper.make_tensor_value_info(name, kind, array.shape))


def _copy(target: ModelProto | GraphProto, name: str, value: object) -> None:
    field_value = getattr(target, name)
    if hasattr(field_value, "extend"):
        field_value.extend(value)
    elif hasattr(field_value, "CopyFrom"):
        field_value.CopyFrom(value)
    else:
        setattr(target, name, value)
