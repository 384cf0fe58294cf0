"""A model as onnxruntime takes it: bytes, and beside them the large weights, which are handed over by their address."""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from google.protobuf.message import EncodeError
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto

from onnx_subprune.errors import ModelError
from onnx_subprune.runtime.protobuf import Field, in_graph

LIMIT = 2**31 - 2**20
"""Protobuf messages end at 2 GiB."""
HELD = 2**27
"""Weights in memory of more bytes than this, all together, are handed to onnxruntime by their address, if each has more than `SIZABLE`."""
SIZABLE = 2**20
HANDED: Mapping[int, int] = {TensorProto.FLOAT: 4, TensorProto.FLOAT16: 2, TensorProto.DOUBLE: 8}
"""Element types that are handed over so, and their bytes."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """A model without its weights, and those."""

    light: ModelProto
    weights: Sequence[TensorProto]


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """A model in serialized pieces without weights (see `wire`), and the weights, all of which it reads."""

    texts: Sequence[bytes]
    weights: Sequence[TensorProto]


Model = ModelProto | Split | Pieces
"""A model in memory."""


def source(model: Model | Path | bytes) -> tuple[str | bytes, Mapping[str, TensorProto]]:
    """Return what onnxruntime loads, and the weights that it is handed beside that: it copies them, so they need not stay."""
    if isinstance(model, Path):
        return str(model), {}
    if isinstance(model, bytes):
        return model, {}
    weights = _weights(model)
    heavy = {tensor.name: tensor for tensor in weights if _bytes_inside(tensor) > SIZABLE}
    if sum(_bytes_inside(tensor) for tensor in heavy.values()) <= HELD:
        if isinstance(model, ModelProto):
            return _joined(map(ModelProto.SerializeToString, [model]), weights), {}
        return _joined(chain(_texts(model), map(_only, weights)), weights), {}
    used = set(heavy)
    if not isinstance(model, Pieces):
        model = model if isinstance(model, Split) else Split(light(model), weights)
        used = _used(model.light.graph)  # onnxruntime forgets the others before it asks for them
    kept = [tensor for tensor in weights if tensor.name in used or tensor.name not in heavy]
    rest = (_only(_elsewhere(tensor) if tensor.name in heavy else tensor) for tensor in kept)
    apart = {name: tensor for name, tensor in heavy.items() if name in used}
    return _joined(chain(_texts(model), rest), [tensor for tensor in kept if tensor.name not in heavy]), apart


def _texts(model: Split | Pieces) -> Iterable[bytes]:
    """The model without its weights, serialized when it is asked for."""
    return model.texts if isinstance(model, Pieces) else map(ModelProto.SerializeToString, [model.light])


def _weights(model: Model) -> Sequence[TensorProto]:
    return model.graph.initializer if isinstance(model, ModelProto) else model.weights


def _used(graph: GraphProto) -> set[str]:
    """Names that nodes read, those in the bodies of control flow among them, and outputs."""
    names = {value.name for value in graph.output}
    for node in graph.node:
        names.update(node.input)
        for attribute in node.attribute:
            bodies = [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs
            names.update(name for body in bodies for name in _used(body))
    return names


def _only(tensor: TensorProto) -> bytes:
    return in_graph(Field.INITIALIZER, tensor.SerializeToString())


def _bytes_inside(tensor: TensorProto) -> int:
    """Bytes of a weight that lies in the model itself and that onnxruntime can be handed; 0 for others."""
    if tensor.data_location == TensorProto.EXTERNAL or tensor.data_type not in HANDED:
        return 0
    return int(math.prod(tensor.dims)) * HANDED[tensor.data_type]


def _elsewhere(tensor: TensorProto) -> TensorProto:
    """`tensor` without its values."""
    light = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    light.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "handed over"), ("offset", "0"), ("length", str(_bytes_inside(tensor)))):
        light.external_data.add(key=key, value=value)
    return light


def weight_bytes(model: Model) -> int:
    """Return the bytes of all weights, inside and in side files."""
    weights = _weights(model)
    outside = (entry.value for tensor in weights for entry in tensor.external_data if entry.key == "length")
    return sum(_bytes_inside(tensor) for tensor in weights) + sum(int(length) for length in outside)


def _joined(parts: Iterable[bytes], weights: Sequence[TensorProto]) -> bytes:
    """One model out of partial ones, one after the other, which hold `weights`."""
    buffer = io.BytesIO()
    try:
        for part in parts:
            buffer.write(part)
    except EncodeError as error:
        if sum(map(_bytes_inside, weights)) < LIMIT // 2:
            raise MemoryError("a model cannot be put together") from error  # protobuf tells it in the same words
        size = LIMIT + 1
    else:
        size = buffer.tell()
    if size > LIMIT:
        raise ModelError(
            "the model holds more than 2 GB of weights in memory: save it with its weights in a side file and pass the path"
        )
    return buffer.getvalue()


def light(model: ModelProto) -> ModelProto:
    """Return `model` without weights and without declared shapes."""
    graph = model.graph
    return ModelProto(
        ir_version=model.ir_version,
        opset_import=model.opset_import,
        functions=model.functions,
        graph=GraphProto(
            name=graph.name,
            node=graph.node,
            input=graph.input,
            output=graph.output,
            sparse_initializer=graph.sparse_initializer,
        ),
    )
