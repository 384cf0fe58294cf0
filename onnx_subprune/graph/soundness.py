"""Is what was read a model at all? Checked before anything is computed, in the words of the file, in time and memory that the file's size bounds.

Files are damaged, cut off, or made to do harm: names that are no text, sizes that disagree with the bytes, functions that call themselves,
cycles. What onnxruntime refuses by itself, with one line, is left to it.
"""

from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto
from onnx.external_data_helper import uses_external_data

from onnx_subprune._typing import Array
from onnx_subprune.errors import ModelError
from onnx_subprune.graph.order import captured
from onnx_subprune.graph.tensors import check_tensor, located, nodes_of, tensors_of

MOST_NODES = 1 << 18
"""Nodes that local functions may expand to, all together."""
MOST_BYTES = 1 << 31
"""Bytes that they may expand to: no more fits into a model."""

Key = tuple[str, str, str]
"""Domain, name and overload of a function."""


def check(model: ModelProto, folder: Path | None) -> None:
    """Raise ModelError if `model`, whose side files lie in `folder`, is broken in a way that would not come out as one line later."""
    _check_text(model, "the model")
    for tensor in tensors_of(model):
        check_tensor(tensor, folder)
    for value in model.graph.input:
        kind = value.type.tensor_type
        if value.type.WhichOneof("value") is None:
            raise ModelError(f"input {value.name!r} has no type: the model is broken; export it again")
        if value.type.HasField("tensor_type") and kind.elem_type not in TensorProto.DataType.values()[1:]:
            raise ModelError(f"input {value.name!r} has the element type {kind.elem_type}, which ONNX does not know")
    _check_functions(model)
    for part in (model.graph, *model.functions):
        _check_splits(nodes_of(part))


def self_contained(model: ModelProto, folder: Path) -> None:
    """Read the tensors that lie in side files but are no initializers, which nothing maps, into `model`."""
    for tensor in islice(tensors_of(model), len(model.graph.initializer), None):
        if uses_external_data(tensor):
            path, offset, size = located(tensor, folder)
            with path.open("rb") as file:
                file.seek(offset)
                tensor.raw_data = file.read(size)
            del tensor.external_data[:]
            tensor.data_location = TensorProto.DEFAULT


def _check_text(message: Message, where: str) -> None:
    """Names must be UTF-8: protobuf hands out bytes where they are not."""
    for descriptor, value in message.ListFields():
        if descriptor.type == FieldDescriptor.TYPE_STRING:
            for text in [value] if isinstance(value, (str, bytes)) else value:
                if isinstance(text, bytes):
                    raise ModelError(
                        f"{where}: its {descriptor.name} {text[:60]!r} is not text (UTF-8): the file is damaged"
                    )
        elif descriptor.type == FieldDescriptor.TYPE_MESSAGE:
            for number, item in enumerate([value] if isinstance(value, Message) else value):
                _check_text(item, _place(item, descriptor.name, number, where))


def _place(item: Message, field: str, number: int, where: str) -> str:
    """What a part is called in a message."""
    if isinstance(item, NodeProto):
        return f"node {number}"
    return f"{field} {number}" if field in ("initializer", "input", "output", "value_info", "functions") else where


def _check_functions(model: ModelProto) -> None:
    """Functions must not call themselves, nor expand to more than can be held; calls must not have more inputs than the function."""
    functions: dict[Key, FunctionProto] = {}
    for function in model.functions:
        key = (_domain(function.domain), function.name, function.overload)
        if key in functions:
            raise ModelError(f"the model has two functions {_spelled(key)}")
        functions[key] = function
    if not functions:
        return
    calls = {key: list(_calls(nodes_of(function), functions)) for key, function in functions.items()}
    try:
        order = list(TopologicalSorter({key: set(inner) for key, inner in calls.items()}).static_order())
    except CycleError as error:
        circle = " calls ".join(_spelled(key) for key in error.args[1][:8])
        raise ModelError(f"a function calls itself: {circle}: such a model cannot be run") from error
    nodes, size = dict[Key, int](), dict[Key, int]()
    for key in order:
        nodes[key] = sum(1 for _ in nodes_of(functions[key])) + sum(nodes[inner] for inner in calls[key])
        size[key] = functions[key].ByteSize() + sum(size[inner] for inner in calls[key])
    used = list(_calls(nodes_of(model.graph), functions))
    if sum(nodes[key] for key in used) > MOST_NODES or sum(size[key] for key in used) > MOST_BYTES:
        largest = max(used, key=lambda key: nodes[key])
        raise ModelError(
            f"the model's functions expand to {sum(nodes[key] for key in used):,} nodes ({_spelled(largest)} alone to {nodes[largest]:,}): "
            f"more than {MOST_NODES:,} nodes or {MOST_BYTES >> 30} GB cannot be handled"
        )


def _check_splits(nodes: Iterator[NodeProto]) -> None:
    """A Split must not have more outputs than it says: onnxruntime ends the process."""
    for node in nodes:
        said = next((item.i for item in node.attribute if item.name == "num_outputs"), None)
        if node.op_type == "Split" and said is not None and len(node.output) > said:
            raise ModelError(
                f"{node.name or node.op_type!r} has {len(node.output)} outputs, but says num_outputs={said}: the model is not valid"
            )


def _calls(nodes: Iterator[NodeProto], functions: Mapping[Key, FunctionProto]) -> Iterator[Key]:
    for node in nodes:
        key = (_domain(node.domain), node.op_type, node.overload)
        if key not in functions:
            continue
        function = functions[key]
        for have, most, what in (
            (node.input, function.input, "inputs"),
            (node.output, function.output, "outputs"),
        ):
            if len(have) > len(most):
                raise ModelError(
                    f"{node.name or node.op_type!r} calls the function {_spelled(key)} with {len(have)} {what}, but it has {len(most)}"
                )
        yield key


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _spelled(key: Key) -> str:
    return ".".join(part for part in key if part)[:80]


def check_signatures(graph: GraphProto, opset: int) -> None:
    """Raise ModelError if a standard node of `graph` lacks inputs or attributes that it cannot be without, or has an attribute of another type."""
    known_here = 1 <= opset <= onnx.defs.onnx_opset_version()
    for number, node in enumerate(graph.node if known_here else ()):
        if _domain(node.domain) or not onnx.defs.has(node.op_type, opset):
            continue
        schema = onnx.defs.get_schema(node.op_type, opset)
        if len(node.input) < schema.min_input:
            raise ModelError(
                f"{_called(node, number)} has {len(node.input)} inputs, and {node.op_type} at least {schema.min_input}: the model is not valid"
            )
        given = {item.name: item.type for item in node.attribute}
        for name, known in schema.attributes.items():
            if known.required and name not in given:
                raise ModelError(f"{_called(node, number)} lacks the attribute {name!r}: the model is not valid")
            kind = known.type.value  # type: ignore[attr-defined] # an IntEnum, which stubs do not say
            if name in given and given[name] not in (kind, AttributeProto.UNDEFINED):
                raise ModelError(
                    f"{_called(node, number)}: its attribute {name!r} is of another type: the model is not valid"
                )


def check_graph(graph: GraphProto) -> None:
    """Raise ModelError if a tensor of `graph` (functions inlined) has two producers, or depends on itself, or a node puts out nothing."""
    producers: dict[str, str] = {}
    for what, values in (("an input of the model", graph.input), ("an initializer", graph.initializer)):
        seen = set[str]()
        for value in values:
            if value.name in seen:
                raise ModelError(f"{value.name!r} is {what} twice: the model is not valid")
            seen.add(value.name)
            producers[value.name] = what
    for sparse in graph.sparse_initializer:
        producers[sparse.values.name] = "an initializer"
    for number, node in enumerate(graph.node):
        if not node.output:
            raise ModelError(f"{_called(node, number)} has no output: the model is not valid")
        for name in node.output:
            if name and name in producers:
                raise ModelError(
                    f"{name!r} has two producers, {producers[name]} and {_called(node, number)}: the model is not valid"
                )
            producers[name] = _called(node, number)
    _check_order(graph.node)


def _called(node: NodeProto, number: int) -> str:
    return f"node {number} ({node.name or node.op_type})"


def _check_order(nodes: Sequence[NodeProto]) -> None:
    made = {name: number for number, node in enumerate(nodes) for name in node.output if name}
    before = [{made[name] for name in (*node.input, *captured(node)) if name in made} for node in nodes]
    if all(number > max(earlier, default=-1) for number, earlier in enumerate(before)):
        return
    try:
        TopologicalSorter(dict(enumerate(before))).prepare()
    except CycleError as error:
        circle = list(dict.fromkeys(error.args[1]))
        names = ", ".join(_called(nodes[number], number) for number in circle[:5])
        raise ModelError(
            f"the graph has a cycle: {names}{' and more' * (len(circle) > 5)} depend on themselves: such a model cannot be run"
        ) from error


WEIGHTED = frozenset(
    {
        "BatchNormalization",
        "Conv",
        "ConvTranspose",
        "Einsum",
        "GRU",
        "Gemm",
        "GroupNormalization",
        "InstanceNormalization",
        "LSTM",
        "LayerNormalization",
        "MatMul",
        "PRelu",
        "RMSNormalization",
        "RNN",
    }
)
"""Operators whose constants must be finite; elsewhere infinities may be meant (masks)."""
JOINING = frozenset({"Add", "Div", "Mul", "Sub"})
"""Operators whose constants must be numbers."""
AT_ONCE = 1 << 22


def not_finite(node: NodeProto, array: Array) -> str | None:
    """Return what a constant that `node` reads must not hold, None if it does not."""
    if array.dtype.kind != "f" or node.op_type not in WEIGHTED | JOINING:
        return None
    flat = array.reshape(-1)
    for start in range(0, flat.size, AT_ONCE):
        part = flat[start : start + AT_ONCE]
        if not np.isfinite(part).all():
            if np.isnan(part).any():
                return "NaN"
            if node.op_type in WEIGHTED:
                return "infinity"
    return None
