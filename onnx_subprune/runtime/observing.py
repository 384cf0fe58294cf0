"""What the tensors inside a model look like in a run: their shapes, their types, and the values of small ones."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto, helper

from onnx_subprune._typing import Array
from onnx_subprune.errors import ModelError
from onnx_subprune.runtime.session import Session, dtype_of
from onnx_subprune.runtime.weights import Split, light

SMALL = 4096
"""Integer tensors of at most this many elements are observed with their values."""


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """What one run shows of a tensor; `value` only of small integer ones."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    value: Array | None


def with_outputs(model: ModelProto, outputs: Sequence[str], nodes: Sequence[NodeProto] = ()) -> Split:
    """`model` and `nodes`, with `outputs` among the outputs and without declared shapes, which may be stale.

    The weights are not copied.
    """
    bare = light(model)
    if nodes and not any(item.domain in ("", "ai.onnx") for item in bare.opset_import):
        bare.opset_import.append(OperatorSetIdProto(domain="", version=13))
    have = {value.name for value in bare.graph.output}
    bare.graph.node.extend(nodes)
    bare.graph.output.extend(ValueInfoProto(name=name) for name in dict.fromkeys(outputs) if name not in have)
    return Split(bare, model.graph.initializer)


_WITHOUT_SHAPE = frozenset(f"tensor({name})" for name in ("int4", "uint4", "int2", "uint2", "float4e2m1"))
"""Element types that onnxruntime's Shape operator does not take."""
FLOAT8, SINCE = "tensor(float8", 21
"""Another one, before this opset."""


def _without_large_weights(model: ModelProto) -> ModelProto:
    """`model` with its large weights as inputs: enough to tell the types of its tensors, at no cost in memory."""
    graph = model.graph
    large = [tensor for tensor in graph.initializer if math.prod(tensor.dims) > SMALL]
    left_out, declared = {tensor.name for tensor in large}, {value.name for value in graph.input}
    bare = light(model)
    bare.graph.initializer.extend(tensor for tensor in graph.initializer if tensor.name not in left_out)
    bare.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in large
        if tensor.name not in declared
    )
    return bare


def _types(model: ModelProto, names: Sequence[str], folder: Path | None) -> dict[str, str]:
    """Types of tensors as onnxruntime spells them."""
    try:
        probe = Session(with_outputs(_without_large_weights(model), names), optimize=False, folder=folder)
    except ModelError:  # some operators take constants only
        probe = Session(with_outputs(model, names), optimize=False, folder=folder)
    return {item.name: str(item.type) for item in probe._session.get_outputs()}


def observe(
    model: ModelProto, feeds: Mapping[str, Array], names: Sequence[str], folder: Path | None = None
) -> dict[str, Array]:
    """Run `model` once, optimizations off, and return the tensors `names`, which may be intermediate ones."""
    return observing(model, names, folder).run(feeds, names)


def observing(model: ModelProto, names: Sequence[str], folder: Path | None = None) -> Session:
    """Return a session, optimizations off, that has the tensors `names` among its outputs, which may be intermediate ones."""
    return Session(with_outputs(model, names), optimize=False, folder=folder)


class Observer:
    """Runs `model`, optimizations off, and says what every tensor of its main graph looks like.

    Left out: sequences, optionals and tensors of 4 or 8 bits that onnxruntime does not compute with. The graph itself tells the shapes, so that only small
    tensors come out and no more activations are alive than in an ordinary run.
    """

    def __init__(self, model: ModelProto, folder: Path | None = None) -> None:
        names = [name for node in model.graph.node for name in node.output if name]
        kinds = _types(model, names, folder)
        opset = max((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=SINCE)
        tensors = [
            name
            for name in names
            if kinds[name].startswith("tensor(")
            and kinds[name] not in _WITHOUT_SHAPE
            and (opset >= SINCE or not kinds[name].startswith(FLOAT8))
        ]
        self._dtypes = {name: dtype_of(kinds[name]) for name in tensors}
        integers = [name for name in tensors if self._dtypes[name].kind in "iub"]
        self._shape_of = {name: f"shape of {name}, observed" for name in tensors}
        nodes = [NodeProto(op_type="Shape", input=[name], output=[shape]) for name, shape in self._shape_of.items()]
        self._wanted = [*self._shape_of.values(), *integers]
        self._session = Session(with_outputs(model, self._wanted, nodes), optimize=False, folder=folder)

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Observed]:
        """Return what the tensors look like in a run on `feeds`, those included."""
        seen = self._session.run(feeds, self._wanted)
        found = {name: Observed(array.shape, array.dtype, _small(array)) for name, array in feeds.items()}
        for name, shape in self._shape_of.items():
            value = _small(seen[name]) if name in seen else None
            found[name] = Observed(tuple(seen[shape].tolist()), self._dtypes[name], value)
        return found


def observe_shapes(model: ModelProto, feeds: Mapping[str, Array], folder: Path | None = None) -> dict[str, Observed]:
    """Run `model` once and return what its tensors look like; see `Observer`."""
    return Observer(model, folder)(feeds)


def _small(array: Array) -> Array | None:
    return np.array(array) if array.size <= SMALL and array.dtype.kind in "iub" else None
