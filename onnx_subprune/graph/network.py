"""An ONNX model as the rest of the package reads it: nodes in order, who makes and who reads what, which tensors are constant.

The user's ModelProto is never changed: local functions are inlined in a copy, weights in a side file stay there and are
mapped when they are read. A tensor is *constant* if it depends on no input of the model: initializers, Constant nodes and
whatever is computed from them alone.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto
from onnx.helper import tensor_dtype_to_np_dtype

from onnx_subprune.errors import ModelError
from onnx_subprune.graph.casts import cast
from onnx_subprune.graph.decided import decided
from onnx_subprune.graph.einsums import unfolded
from onnx_subprune.graph.formats import Model, given_bytes, line_of, model_bytes, read_model
from onnx_subprune.graph.fused_layers import apart
from onnx_subprune.graph.layouts import steps_first
from onnx_subprune.graph.loops import loops_of, recurrent
from onnx_subprune.graph.one_group import written_out
from onnx_subprune.graph.operators import NO_CONSTANTS, STANDARD, key_of
from onnx_subprune.graph.order import captured, topological
from onnx_subprune.graph.packed import unpacked
from onnx_subprune.graph.quantized import only_quantized, quantizes
from onnx_subprune.graph.roots import steadied
from onnx_subprune.graph.separation import separated
from onnx_subprune.graph.soundness import check, check_graph, check_signatures, not_finite, self_contained
from onnx_subprune.graph.spelling import spelled
from onnx_subprune.graph.squeezes import with_axes
from onnx_subprune.graph.strides import viewed
from onnx_subprune.graph.tensors import tensor_array
from onnx_subprune.runtime.observing import observe
from onnx_subprune.runtime.session import Port

LARGE = 1 << 28
"""Bytes of a model from which on a second one in memory beside it is too much."""


class Network:
    """A loaded model. Immutable by convention: nothing here changes after construction.

    given: the model with local functions inlined, the body of an If that sizes decide in its place (`decided`), types as they are
        (`casts`), layers apart that onnxruntime has fused (`fused_layers`), normalisations of one group written out (`one_group`),
        Loops that are recurrent layers written as such (`loops`), recurrent layers with their steps first (`layouts`) and told apart (`separation`),
        Einsum as products (`einsums`), Q, K and V that a Reshape takes apart by a Split (`packed`), sizes that scale something as numbers (`roots`)
        and views as Reshapes (`strides`); side-file weights are still references.
    loops: how many Loops are not there any more. timed: the model with them, which is what the user runs.
    squeezed: what Squeezes make that have no axes in the file (`squeezes`).
    proto: the same with normalisations over channels spelled out (`spelling`): what is traced and calibrated.
    folder: where side files lie; None for a model that has none.
    size: bytes of the model and its side files as they were given.
    nodes: in topological order; `labels` are their unique names, in the same order.
    """

    def __init__(self, proto: ModelProto, folder: Path | None = None, size: int | None = None) -> None:
        self.size = model_bytes(proto) if size is None else size
        self.inlined = len(proto.functions)
        self.proto = _inlined(proto) if self.inlined else proto
        self.folder = folder
        check_graph(self.proto.graph)
        check_signatures(self.proto.graph, self.opset)
        whole, self.squeezed = with_axes(written_out(cast(apart(decided(self.proto)))), self.opset)
        plain = recurrent(whole, lambda model, names: observe(model, {}, names))
        self.loops = len(loops_of(whole.graph)) - len(loops_of(plain.graph))
        self.given = steadied(viewed(unpacked(unfolded(separated(steps_first(plain))))))
        self.timed = whole if self.loops else self.given
        self.spelled = spelled(self.given)
        self.proto, graph = self.spelled.proto, self.spelled.proto.graph
        self.initializers: Mapping[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self.nodes: tuple[NodeProto, ...] = tuple(topological(graph))
        self.labels = _labels(self.nodes)
        self.inputs = tuple(value for value in graph.input if value.name not in self.initializers)
        self.outputs = tuple(value.name for value in graph.output)
        self.producer: Mapping[str, int] = {
            name: i for i, node in enumerate(self.nodes) for name in node.output if name
        }
        self._values: dict[str, NDArray[np.generic]] = {}
        if not self.nodes:
            raise ModelError("the model has no nodes: there is nothing to prune")

    @property
    def opset(self) -> int:
        """Version of the standard operators that the model uses."""
        return max((o.version for o in self.proto.opset_import if o.domain in STANDARD), default=1)

    @cached_property
    def position(self) -> Mapping[str, int]:
        """Place of each node in the order, by label."""
        return {label: index for index, label in enumerate(self.labels)}

    @cached_property
    def reads(self) -> tuple[tuple[str, ...], ...]:
        """What each node reads: its inputs, as often as it has them, then what the bodies of a control-flow node capture."""
        return tuple(tuple(name for name in (*node.input, *captured(node)) if name) for node in self.nodes)

    @cached_property
    def readers(self) -> Mapping[str, tuple[tuple[int, int], ...]]:
        """For each tensor the (node index, slot) pairs that read it; slot -1 for a capture by a control-flow body."""
        found: dict[str, list[tuple[int, int]]] = {}
        for index, node in enumerate(self.nodes):
            for slot, name in enumerate(node.input):
                if name:
                    found.setdefault(name, []).append((index, slot))
            for name in captured(node):
                found.setdefault(name, []).append((index, -1))
        return {name: tuple(places) for name, places in found.items()}

    @cached_property
    def constants(self) -> frozenset[str]:
        """Names of all tensors that depend on no input of the model; those of quantized numbers are none: what has such weights stays."""
        known = set(self.initializers)  # sparse ones are not read, let alone sliced: what they meet is pinned
        for node, reads in zip(self.nodes, self.reads, strict=True):
            if not key_of(node).startswith(NO_CONSTANTS) and not quantizes(node) and known.issuperset(reads):
                known.update(name for name in node.output if name)
        return frozenset(known)

    def node(self, label: str) -> NodeProto:
        """Return the node called `label`."""
        return self.nodes[self.position[label]]

    def array(self, name: str) -> NDArray[np.generic]:
        """Return the value of a constant tensor; a read-only view where it lies in a side file."""
        if name in self.initializers:
            return tensor_array(self.initializers[name], self.folder)
        if name not in self._values:
            self._values[name] = self._compute(name)
        return self._values[name]

    def _compute(self, name: str) -> NDArray[np.generic]:
        node = self.nodes[self.producer[name]]
        if key_of(node) == "Constant":
            for item in node.attribute:
                if item.name == "value":
                    return tensor_array(item.t, self.folder)
        model = self.part([name], stop=())
        return observe(model, {}, [name], self.folder)[name]

    def part(self, targets: Sequence[str], stop: Sequence[str]) -> ModelProto:
        """Return the sub-model that computes `targets` from `stop` (neither has its type declared)."""
        chosen, needed = self.ancestors(targets, stop)
        graph = GraphProto(name=self.proto.graph.name or "part")
        graph.node.extend(self.nodes[i] for i in chosen)
        graph.initializer.extend(self.initializers[name] for name in self.initializers if name in needed)
        graph.sparse_initializer.extend(s for s in self.proto.graph.sparse_initializer if s.values.name in needed)
        return onnx.helper.make_model(graph, opset_imports=self.proto.opset_import, ir_version=self.proto.ir_version)

    def ancestors(self, targets: Sequence[str], stop: Sequence[str]) -> tuple[list[int], set[str]]:
        """Return the nodes that compute `targets` from `stop`, in order, and the names of all tensors that they read."""
        wall, needed, chosen = set(stop), set(targets), set[int]()
        pending = [name for name in targets if name not in wall]
        while pending:
            index = self.producer.get(pending.pop())
            if index is None or index in chosen:
                continue
            chosen.add(index)
            needed.update(self.reads[index])
            pending.extend(name for name in self.reads[index] if name not in wall)
        return sorted(chosen), needed


def _inlined(proto: ModelProto) -> ModelProto:
    try:
        return onnx.inliner.inline_local_functions(proto)
    except Exception as error:  # what the library raises in C++ has no common base
        raise ModelError(f"the model's local functions cannot be inlined: {line_of(error)}") from error


def _labels(nodes: Sequence[NodeProto]) -> tuple[str, ...]:
    """The node's own name where that is unique, else operator and first output."""
    counts: dict[str, int] = {}
    for node in nodes:
        counts[node.name] = counts.get(node.name, 0) + 1
    outputs = [next((name for name in node.output if name), str(i)) for i, node in enumerate(nodes)]
    return tuple(
        node.name if node.name and counts[node.name] == 1 else f"{node.op_type}:{output}"
        for node, output in zip(nodes, outputs, strict=True)
    )


def load(model: Model | Network) -> Network:
    """Return `model` as a Network; ModelError if it cannot be read or is not valid, ArgumentTypeError if it is no model at all."""
    if isinstance(model, Network):
        return model
    proto, folder = read_model(model)
    for opset in proto.opset_import:
        if opset.domain in STANDARD and opset.version < 7:
            raise ModelError(
                f"the model uses opset {opset.version}; convert it with onnx.version_converter to 9 or newer first"
            )
    try:
        check(proto, folder)
        if folder is not None:
            self_contained(proto, folder)
        return Network(proto, folder, given_bytes(model, proto))
    except ModelError:
        raise
    except RecursionError as error:
        raise ModelError("the model's graphs are nested too deeply") from error


def check_floating(network: Network) -> None:
    """Raise ModelError for a model whose layers are all quantized: it can be compared, but not pruned."""
    node = only_quantized(network.nodes, network.constants) if any(map(quantizes, network.nodes)) else None
    if node is not None:
        label = network.labels[network.nodes.index(node)]
        raise ModelError(
            f"{label} ({key_of(node)}): the model is quantized; prune the float model first, then quantize it"
        )


def check_computes(network: Network) -> None:
    """Raise ModelError where a model has no outputs, or a weight, which it names, holds NaN or infinity where no number can be meant."""
    if not network.outputs:
        raise ModelError("the model has no outputs: there is nothing to keep")
    for label, node in zip(network.labels, network.nodes, strict=True):
        for name in node.input:
            known = name in network.initializers or (
                name in network.producer and network.nodes[network.producer[name]].op_type == "Constant"
            )
            found = not_finite(node, network.array(name)) if known else None
            if found is not None:
                raise ModelError(f"weight {name!r} of {label} holds {found}: the model is broken; export it again")


def only_reader(network: Network, tensor: str) -> tuple[int, int] | None:
    """Return node index and slot of the only reader of `tensor`; None if there are several, or it is an output."""
    readers = network.readers.get(tensor, ())
    if len(readers) != 1 or tensor in network.outputs or readers[0][1] < 0:
        return None
    return readers[0]


def ports(network: Network) -> list[Port]:
    """Return the inputs that data must be given for."""
    found = []
    for value in network.inputs:
        kind = value.type.tensor_type
        shape = tuple(dim.dim_value or dim.dim_param or None for dim in kind.shape.dim)
        found.append(Port(value.name, shape, tensor_dtype_to_np_dtype(kind.elem_type)))
    return found
