"""Writing models: whole or not at all, large weights into a side file."""

import math
import os
import shutil
import tempfile
import weakref
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto
from onnx.external_data_helper import set_external_data, uses_external_data

from onnx_subprune.errors import OutputError
from onnx_subprune.graph.network import tensor_array

INLINE = 1500 << 20
"""Models with more bytes of weights than this get a side file."""
SETTLED = 256 << 20
"""Weights of more bytes than this, of a model that has side files, wait in a side file too until it is saved."""
SMALL = 1024
"""Weights of fewer bytes stay in the model."""


def free_path(path: Path, *, force: bool) -> None:
    """Raise OutputError if `path` cannot be written: exists without `force`, or its folder is missing or not writable."""
    folder = path.parent
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name a file")
    if path.exists() and not force:
        raise OutputError(f"{path}: exists already; choose another name, or overwrite it with --force")
    if not folder.is_dir():
        raise OutputError(f"{folder}: no such folder; make it first")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written to ({error.strerror}); choose another folder") from error


def side_file_wanted(model: ModelProto) -> bool:
    """True if the weights of `model` belong into a side file: they lie in one, or are too large."""
    return any(uses_external_data(tensor) for tensor in model.graph.initializer) or model.ByteSize() > INLINE


class Settled:
    """A model whose large weights lie in side files in `folder`, a temporary one that lasts as long as this."""

    def __init__(self, model: ModelProto, folder: Path | None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="onnx-subprune-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.model = _externalized(model, folder, self.folder / "weights.data")


def settled(model: ModelProto, folder: Path | None) -> Settled | None:
    """Return `model` with its weights out of memory; None if it came without side files, or is small."""
    weights = model.graph.initializer
    inside = sum(_bytes(tensor) for tensor in weights if not uses_external_data(tensor))
    return Settled(model, folder) if folder is not None and inside > SETTLED else None


def _bytes(tensor: TensorProto) -> int:
    return int(math.prod(tensor.dims)) * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def save_model(model: ModelProto, folder: Path | None, path: Path, *, side_file: bool) -> None:
    """Write `model`, whose side files lie in `folder`, to `path`, with `side_file` its large weights to `path` + ".data".

    Both files appear whole or not at all. Raises OutputError.
    """
    data = path.with_name(path.name + ".data")
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".onnx-subprune-") as temporary:
            new = Path(temporary) / path.name
            new_data = Path(temporary) / data.name
            onnx.save(_externalized(model, folder, new_data) if side_file else _inlined(model, folder), new)
            if new_data.exists():
                os.replace(new_data, data)
            os.replace(new, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}); choose another folder") from error


def _inlined(model: ModelProto, folder: Path | None) -> ModelProto:
    if not any(uses_external_data(tensor) for tensor in model.graph.initializer):
        return model
    copy = ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if uses_external_data(tensor):
            tensor.raw_data = tensor_array(tensor, folder).tobytes()
            del tensor.external_data[:]
            tensor.data_location = TensorProto.DEFAULT
    return copy


def _externalized(model: ModelProto, folder: Path | None, data: Path) -> ModelProto:
    """A copy whose large weights have been written to `data`, one after the other, never all in memory."""
    copy = ModelProto()
    copy.CopyFrom(_without_weights(model))
    with data.open("wb") as file:
        for tensor in model.graph.initializer:
            array = tensor_array(tensor, folder)
            if array.nbytes < SMALL and not uses_external_data(tensor):
                copy.graph.initializer.append(tensor)
                continue
            light = copy.graph.initializer.add()
            light.name, light.data_type, light.doc_string = tensor.name, tensor.data_type, tensor.doc_string
            light.dims.extend(tensor.dims)
            light.raw_data = b""
            offset = file.tell()
            file.write(array.tobytes())
            set_external_data(light, data.name, offset, array.nbytes)
            light.ClearField("raw_data")
            light.data_location = TensorProto.EXTERNAL
    return copy


def _without_weights(model: ModelProto) -> ModelProto:
    light = ModelProto()
    for descriptor, value in model.ListFields():
        if descriptor.name != "graph":
            target = getattr(light, descriptor.name)
            if hasattr(target, "extend"):
                target.extend(value)
            else:
                setattr(light, descriptor.name, value)
    for descriptor, value in model.graph.ListFields():
        if descriptor.name != "initializer":
            target = getattr(light.graph, descriptor.name)
            if hasattr(target, "extend"):
                target.extend(value)
            elif hasattr(target, "CopyFrom"):
                target.CopyFrom(value)
            else:
                setattr(light.graph, descriptor.name, value)
    return light
