"""Topological order and dead-code elimination, by onnx-graphsurgeon on a skeleton of the graph (no weights)."""

from collections.abc import Iterable, Sequence

import onnx_graphsurgeon as gs
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

BODIES = (AttributeProto.GRAPH, AttributeProto.GRAPHS, AttributeProto.UNDEFINED)
"""Types of attributes that may hold bodies; models from before the types were required have none."""


def captured(node: NodeProto) -> tuple[str, ...]:
    """Names of outer tensors that the bodies of a control-flow node read."""
    names: dict[str, None] = {}
    for attribute in node.attribute:
        if attribute.type not in BODIES:
            continue
        bodies = [attribute.g] if attribute.type == AttributeProto.GRAPH else list(attribute.graphs)
        for body in bodies:
            own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
            own |= {name for inner in body.node for name in inner.output}
            for inner in body.node:
                names.update(dict.fromkeys(n for n in (*inner.input, *captured(inner)) if n and n not in own))
            names.update(dict.fromkeys(value.name for value in body.output if value.name not in own))
    return tuple(names)


def _skeleton(nodes: Sequence[NodeProto], outputs: Sequence[str]) -> tuple[gs.Graph, list[gs.Node]]:
    """Nodes and edges only; captured tensors become inputs, so that what a body reads stays alive."""
    tensors: dict[str, gs.Variable] = {}

    def tensor(name: str) -> gs.Variable:
        return tensors.setdefault(name, gs.Variable(name)) if name else gs.Variable.empty()

    made = [
        gs.Node(
            op=node.op_type,
            name=str(index),
            inputs=[tensor(name) for name in (*node.input, *captured(node))],
            outputs=[tensor(name) for name in node.output],
        )
        for index, node in enumerate(nodes)
    ]
    return gs.Graph(nodes=list(made), outputs=[tensor(name) for name in outputs]), made


def topological(graph: GraphProto) -> list[NodeProto]:
    """Return the nodes of `graph` in topological order; the given order where it already is one."""
    known = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    known |= {tensor.values.name for tensor in graph.sparse_initializer} | {""}
    for node in graph.node:
        if not known.issuperset(node.input):
            break
        known.update(node.output)
    else:
        return list(graph.node)
    skeleton, _ = _skeleton(graph.node, [value.name for value in graph.output])
    return [graph.node[int(node.name)] for node in skeleton.toposort().nodes]


def live(nodes: Sequence[NodeProto], outputs: Sequence[str]) -> list[NodeProto]:
    """Return the nodes that some of `outputs` depends on, in the given order."""
    skeleton, _ = _skeleton(nodes, outputs)
    skeleton.cleanup(remove_unused_graph_inputs=False)
    keep = {int(node.name) for node in skeleton.nodes}
    return [node for index, node in enumerate(nodes) if index in keep]


def rewritten(proto: ModelProto, nodes: Sequence[NodeProto], constants: Sequence[TensorProto]) -> ModelProto:
    """Return the model with other nodes, and these constants beside its own; what its nodes read and these do not is left out."""
    ends = {value.name for value in (*proto.graph.output, *proto.graph.input)}
    before, left, kept = ends | _reads(proto.graph.node), [*nodes], len(nodes) + 1
    while len(left) < kept:
        kept, dropped = len(left), before - ends - _reads(left) - {""}
        left = [node for node in left if not dropped.issuperset(node.output)]
    model = ModelProto()
    model.CopyFrom(proto)
    graph = model.graph
    del graph.node[:]
    graph.node.extend(left)
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name in dropped:
            del graph.initializer[index]
    graph.initializer.extend(constants)
    known = {name for node in left for name in node.output}
    declared = [value for value in graph.value_info if value.name in known or value.name not in before]
    del graph.value_info[:]
    graph.value_info.extend(declared)
    return model


def _reads(nodes: Iterable[NodeProto]) -> set[str]:
    return {name for node in nodes for name in (*node.input, *captured(node))}
