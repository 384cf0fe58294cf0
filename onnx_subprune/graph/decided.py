"""An If whose condition follows from sizes that the model declares: the model is loaded with the body that runs in its place.

    If(Equal(Gather(Shape(x), 1), 1))       then_branch: Squeeze(x)       else_branch: x

TorchScript's exporter writes one where the size of an axis is not known to it, and for the ranks and batches that recurrent layers accept. onnxruntime
refuses inputs of other sizes than are declared, so that this is the same model, and the channels in front of it lead on to what is behind.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from onnx_subprune._typing import Float64
from onnx_subprune.graph.names import fresh
from onnx_subprune.graph.operators import STANDARD, attribute
from onnx_subprune.graph.order import BODIES, rewritten
from onnx_subprune.graph.stored import Stored

DEPTH = 16
"""Bodies within bodies, and operators of a condition, that are followed."""
UNCHANGED = frozenset(["Reshape", "Squeeze", "Unsqueeze"])
"""Operators that keep a single number."""
FUNCTIONS: Mapping[str, Callable[..., Float64]] = {
    "Add": np.add,
    "And": np.logical_and,
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Mul": np.multiply,
    "Not": np.logical_not,
    "Or": np.logical_or,
    "Sub": np.subtract,
}
"""What is computed of whole numbers, number by number."""


def decided(proto: ModelProto) -> ModelProto:
    """Return the model without such Ifs; `proto` itself where it has none. It is not changed."""
    for _ in range(DEPTH):
        conditions = [node for node in proto.graph.node if _is_if(node)]
        sizes = _Sizes(proto) if conditions else None
        known = {id(node): sizes.truth(node.input[0]) for node in conditions} if sizes is not None else {}
        bodies = {node.output[0]: _body(node, chosen) for node in conditions if (chosen := known[id(node)]) is not None}
        if not any(body is not None for body in bodies.values()):
            return proto
        proto = _opened(proto, bodies)
    return proto


def _is_if(node: NodeProto) -> bool:
    return node.op_type == "If" and node.domain in STANDARD and bool(node.output) and all(node.output)


def _body(node: NodeProto, chosen: bool) -> GraphProto | None:
    """The body that runs; None where it holds constants that no graph takes over."""
    body = attribute(node, "then_branch" if chosen else "else_branch")
    sound = isinstance(body, GraphProto) and not body.sparse_initializer and len(body.output) == len(node.output)
    return body if isinstance(body, GraphProto) and sound else None


class _Sizes:
    """Lists of whole numbers, as far as they follow from declared sizes: those that do not are no numbers."""

    def __init__(self, proto: ModelProto) -> None:
        self._known = Stored(proto)

    def truth(self, name: str) -> bool | None:
        """Return what a condition is; None where that is not known."""
        value = self._value(name, DEPTH)
        return None if value is None or value.size != 1 or np.isnan(value[0]) else bool(value[0])

    def _value(self, name: str, depth: int) -> Float64 | None:
        """The numbers of a tensor of up to one axis, or of one number; None where not even their count is known."""
        if self._known.known(name):
            constant = self._known.small(name)
            return None if constant is None or constant.dtype.kind not in "biu" else constant.astype(np.float64).ravel()
        node = self._known.producer(name)
        if node is None or not depth:
            return None
        if node.op_type in ("Shape", "Size"):
            return self._sized(node)
        if node.op_type == "Identity" or (node.op_type == "Cast" and attribute(node, "to") in WHOLE):
            return self._value(node.input[0], depth - 1)
        if node.op_type in UNCHANGED:
            value = self._value(node.input[0], depth - 1)
            return value if value is not None and value.size == 1 else None
        return self._computed(node, depth)

    def _sized(self, node: NodeProto) -> Float64 | None:
        sizes = self._known.sizes(node.input[0])
        if sizes is None:
            return None
        found = np.array([np.nan if size is None else size for size in sizes])
        if node.op_type == "Size":
            return np.array([np.prod(found)])
        first, last = attribute(node, "start", 0), attribute(node, "end")
        return found[first:last]

    def _computed(self, node: NodeProto, depth: int) -> Float64 | None:
        given = [self._value(item, depth - 1) for item in node.input]
        values = [item for item in given if item is not None]
        if len(values) < len(given):
            return None
        if node.op_type == "Concat":
            return np.concatenate(values)
        if node.op_type == "Gather":
            places, size = values[1], len(values[0])
            inside = not np.isnan(places).any() and bool(((places >= -size) & (places < size)).all())
            return values[0][places.astype(np.int64)] if inside else None
        if node.op_type == "Cast" and attribute(node, "to") == TensorProto.BOOL:
            return np.where(np.isnan(values[0]), np.nan, values[0] != 0.0)
        if node.op_type not in FUNCTIONS or len({item.size for item in values} - {1}) > 1:
            return None
        unknown = np.isnan(sum(values[1:], values[0]))
        return np.where(unknown, np.nan, FUNCTIONS[node.op_type](*values))


WHOLE = (TensorProto.INT32, TensorProto.INT64)
"""Types that hold every size."""


def _opened(proto: ModelProto, bodies: Mapping[str, GraphProto | None]) -> ModelProto:
    """Put bodies in the places of nodes, by their first output."""
    defined = Counter(_defined(proto.graph))
    taken = {*defined, *(value.name for value in proto.graph.input)}
    nodes, constants = list[NodeProto](), list[TensorProto]()
    for node in proto.graph.node:
        body = bodies.get(node.output[0]) if _is_if(node) else None
        if body is None:
            nodes.append(node)
            continue
        own = [*(name for inner in body.node for name in inner.output if name), *(t.name for t in body.initializer)]
        made = {name for inner in body.node for name in inner.output}
        names: dict[str, str] = {}
        for inside, outside in zip(body.output, node.output, strict=True):
            if inside.name in made:
                names.setdefault(inside.name, outside)
        names |= {name: fresh(taken, name) for name in own if name not in names and defined[name] > 1}
        nodes += [_renamed(inner, names) for inner in body.node]
        for inside, outside in zip(body.output, node.output, strict=True):
            if names.get(inside.name) != outside:
                nodes.append(helper.make_node("Identity", [names.get(inside.name, inside.name)], [outside]))
        for tensor in body.initializer:
            constants.append(TensorProto())
            constants[-1].CopyFrom(tensor)
            constants[-1].name = names.get(tensor.name, tensor.name)
    return rewritten(proto, nodes, constants)


def _defined(graph: GraphProto) -> Iterator[str]:
    """Yield what a graph and its bodies call anything."""
    yield from (tensor.name for tensor in graph.initializer)
    yield from (value.name for value in graph.input)
    for node in graph.node:
        yield from node.output
        for item in node.attribute:
            if item.type in BODIES:
                for body in [item.g] if item.HasField("g") else item.graphs:
                    yield from _defined(body)


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    """Return a copy of a node whose inputs and outputs, and what its bodies read, have other names."""
    found = NodeProto()
    found.CopyFrom(node)
    for part in (found.input, found.output):
        part[:] = [names.get(name, name) for name in part]
    for item in found.attribute:
        if item.type in BODIES:
            for body in [item.g] if item.HasField("g") else item.graphs:
                inner = [_renamed(each, names) for each in body.node]
                del body.node[:]
                body.node.extend(inner)
                for value in body.output:
                    value.name = names.get(value.name, value.name)
    return found
