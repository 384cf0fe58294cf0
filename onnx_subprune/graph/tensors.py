"""Weights of a model: where they lie, whether they are what they say, and their values."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.external_data_helper import uses_external_data

from onnx_subprune.errors import ModelError

MOST_AXES = 64 if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else 32
"""NumPy has arrays of no more axes."""
BITS: dict[int, int] = {
    kind: int(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).itemsize) * 8
    for kind in TensorProto.DataType.values()
    if kind not in (TensorProto.UNDEFINED, TensorProto.STRING)
}
"""Bits of an element, by type."""
for _name, _bits in (("INT4", 4), ("UINT4", 4), ("FLOAT4E2M1", 4), ("INT2", 2), ("UINT2", 2)):
    if _name in TensorProto.DataType.keys():  # noqa: SIM118 - no dictionary
        BITS[TensorProto.DataType.Value(_name)] = _bits
WIDE: dict[int, str] = {
    TensorProto.FLOAT: "float_data",
    TensorProto.COMPLEX64: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.COMPLEX128: "double_data",
    TensorProto.INT64: "int64_data",
    TensorProto.UINT32: "uint64_data",
    TensorProto.UINT64: "uint64_data",
}
"""Fields that hold the elements where they are no raw bytes; int32_data for all others."""


def tensors_of(model: ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor of `model`: initializers, sparse ones, attributes, in bodies and in functions."""
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from _of_nodes(function)
        for item in function.attribute_proto:
            yield from _of_attribute(item)
    for training in model.training_info:
        yield from _of_graph(training.initialization)
        yield from _of_graph(training.algorithm)


def _of_graph(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph)


def _of_nodes(body: GraphProto | FunctionProto) -> Iterator[TensorProto]:
    for node in body.node:
        for item in node.attribute:
            yield from _of_attribute(item)


def _of_attribute(item: AttributeProto) -> Iterator[TensorProto]:
    if item.HasField("t"):
        yield item.t
    yield from item.tensors
    for sparse in (*((item.sparse_tensor,) if item.HasField("sparse_tensor") else ()), *item.sparse_tensors):
        yield from (sparse.values, sparse.indices)
    for graph in graphs_of(item):
        yield from _of_graph(graph)


def graphs_of(item: AttributeProto) -> list[GraphProto]:
    """Return the graphs that an attribute holds."""
    return [*((item.g,) if item.HasField("g") else ()), *item.graphs]


def nodes_of(body: GraphProto | FunctionProto) -> Iterator[NodeProto]:
    """Yield the nodes of a body, and those of the bodies within them."""
    for node in body.node:
        yield node
        for item in node.attribute:
            for graph in graphs_of(item):
                yield from nodes_of(graph)


def check_tensor(tensor: TensorProto, folder: Path | None) -> None:
    """Raise ModelError if the sizes of `tensor` are none, or disagree with the bytes that it has."""
    name, dims = f"weight {tensor.name!r}", list(tensor.dims)
    if len(dims) > MOST_AXES:
        raise ModelError(f"{name} has {len(dims)} dimensions: more than {MOST_AXES}, which NumPy has at most")
    if any(size < 0 for size in dims):
        raise ModelError(f"{name} has the dimensions {dims}: a size cannot be negative; the file is damaged")
    if tensor.data_type != TensorProto.STRING and tensor.data_type not in BITS:
        raise ModelError(
            f"{name} has the element type {tensor.data_type}, which ONNX does not know; the file is damaged"
        )
    if uses_external_data(tensor):
        located(tensor, folder)
        return
    elements = math.prod(dims)
    if elements >= 1 << 48:  # beyond any memory; and NumPy counts in 64 bits
        raise ModelError(f"{name} has the dimensions {dims}: no machine holds so many elements; the file is damaged")
    have, want = _amounts(tensor, elements)
    if have != want:
        raise ModelError(
            f"{name} has the dimensions {dims}, which take {want} {'bytes' if tensor.HasField('raw_data') else 'numbers'}, "
            f"but it has {have}: the file is damaged"
        )


def _amounts(tensor: TensorProto, elements: int) -> tuple[int, int]:
    """How many bytes or numbers there are, and how many there must be."""
    if tensor.data_type == TensorProto.STRING:
        return len(tensor.string_data), elements
    bits = BITS[tensor.data_type]
    packed = -(-elements * bits // 8) if bits < 8 else None
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data), packed if packed is not None else elements * bits // 8
    have = len(getattr(tensor, WIDE.get(tensor.data_type, "int32_data")))
    pairs = tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128)
    return have, packed if packed is not None else elements * (2 if pairs else 1)


def located(tensor: TensorProto, folder: Path | None) -> tuple[Path, int, int]:
    """Return side file, offset and bytes of a tensor that lies in one; ModelError if they cannot be right."""
    if folder is None:
        raise ModelError(
            f"weight {tensor.name!r} lies in a side file, but the model came without its folder: pass the path of the model"
        )
    if tensor.data_type not in BITS:
        raise ModelError(f"weight {tensor.name!r}: text cannot lie in a side file")
    entry = {item.key: item.value for item in tensor.external_data}
    path = side_file(tensor, folder)
    wanted = -(-math.prod(tensor.dims) * BITS[tensor.data_type] // 8)
    offset = _number(tensor, "offset", entry.get("offset", "0"))
    length = _number(tensor, "length", entry["length"]) if "length" in entry else wanted
    if length != wanted:
        raise ModelError(
            f"weight {tensor.name!r} has the dimensions {list(tensor.dims)}, which take {wanted} bytes, but {length} in its side file: "
            "the file is damaged"
        )
    if path.stat().st_size < offset + wanted:
        raise ModelError(
            f"{path}: too short for weight {tensor.name!r}: the file is truncated or belongs to another model"
        )
    return path, offset, wanted


def _number(tensor: TensorProto, key: str, text: str) -> int:
    if not (isinstance(text, str) and text.isascii() and text.isdecimal() and len(text) < 19):
        raise ModelError(f"weight {tensor.name!r}: the {key} {text[:40]!r} in its side file is not a number of bytes")
    return int(text)


def side_file(tensor: TensorProto, folder: Path) -> Path:
    """Return the path of a tensor's side file; ModelError if it is missing or leaves the model's folder."""
    location = next((item.value for item in tensor.external_data if item.key == "location"), "")
    if not isinstance(location, str) or "\0" in location:
        raise ModelError(f"weight {tensor.name!r} names the side file {location!r}, which no file can be called")
    root = os.path.realpath(folder)
    path = os.path.realpath(os.path.join(root, location))
    if not location or os.path.isabs(location) or os.path.commonpath([root, path]) != root:
        raise ModelError(
            f"weight {tensor.name!r} names the side file {location!r}, outside the model's folder {folder}: move it there"
        )
    if not os.path.isfile(path):
        raise ModelError(f"{path}: side file of the model is missing: put it back beside the model")
    return Path(path)


def tensor_array(tensor: TensorProto, folder: Path | None) -> NDArray[np.generic]:
    """Return the value of `tensor`; a memory map of its side file if it has one (never of a path outside `folder`)."""
    if not uses_external_data(tensor):
        return numpy_helper.to_array(tensor)
    path, offset, wanted = located(tensor, folder)
    if BITS[tensor.data_type] < 8:
        inside = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        with path.open("rb") as file:
            file.seek(offset)
            inside.raw_data = file.read(wanted)
        return numpy_helper.to_array(inside)
    dtype, shape = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type), tuple(tensor.dims)
    if wanted == 0:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape or (1,)).reshape(shape)


def model_files(path: Path) -> list[Path]:
    """Return the files that a model at `path` consists of: itself and its side files, whether they are there or not."""
    found = {path: None}
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError):
        return [path]
    for tensor in tensors_of(model):
        for item in tensor.external_data:
            if item.key == "location" and isinstance(item.value, str) and item.value and "\0" not in item.value:
                found[path.parent / item.value] = None
    return list(found)
