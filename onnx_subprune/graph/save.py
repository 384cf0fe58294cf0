"""Writing models: whole or not at all, large weights into a side file."""

import math
import os
import re
import secrets
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto
from onnx.external_data_helper import set_external_data, uses_external_data

from onnx_subprune.graph.tensors import BITS, located, model_files, tensor_array
from onnx_subprune.runtime.files import put, workshop
from onnx_subprune.runtime.interrupts import undisturbed

INLINE = 1500 << 20
"""Models with more bytes of weights than this get a side file."""
SETTLED = 256 << 20
"""Weights of more bytes than this, of a model that has side files, wait in a side file too until it is saved."""
NAMED = Path("model.onnx")
"""What the file is taken to be called where its bytes are counted before it has a name, which every weight in its side file has."""
SMALL = 1024
"""Weights of fewer bytes stay in the model."""


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
    return int(math.prod(tensor.dims)) * BITS.get(tensor.data_type, 0) // 8


def side_path(path: Path) -> Path:
    """Return where the large weights of a model at `path` go."""
    return path.with_name(path.name + ".data")


def save_model(model: ModelProto, folder: Path | None, path: Path, *, side_file: bool) -> None:
    """Write `model`, whose side files lie in `folder`, to `path`, with `side_file` its large weights to `side_path(path)`.

    Both files appear whole or not at all, and whenever the process is killed, `path` is a whole model: the one that was there, with its
    side file, or the new one with its own. Raises OutputError.
    """
    with workshop(path) as temporary:
        new = temporary / "model"
        if not side_file:
            onnx.save(_inlined(model, folder), new)
            put(new, path)
            return
        data = side_path(path)
        new_data = temporary / "data"
        light = _externalized(model, folder, new_data)
        _relocate(light, data.name)
        onnx.save(light, new)
        if data.exists():
            _replace_pair(light, temporary, path)
        else:  # the model that is there, if one is, does not read it
            with undisturbed():
                put(new_data, data)
                put(new, path)


def _replace_pair(light: ModelProto, temporary: Path, path: Path) -> None:
    """Put `model` and `data` in `temporary` in the places of `path` and its side file, which the model that is there may read.

    Two files cannot be replaced at once. So the new data get a name of their own first, by which a first new model knows them; then nothing
    reads the old data any more, the new ones take their name as well, and a second new model knows them by that.
    """
    data = side_path(path)
    spare = data.with_name(f"{data.name}.{secrets.token_hex(4)}")
    left_over = [item for item in model_files(path) if _is_spare(item, data)]
    _relocate(light, spare.name)
    onnx.save(light, temporary / "first")
    try:
        os.link(temporary / "data", temporary / "again")
    except OSError:  # not every file system has links
        shutil.copyfile(temporary / "data", temporary / "again")
    with undisturbed():
        put(temporary / "data", spare)
        put(temporary / "first", path)
        put(temporary / "again", data)
        put(temporary / "model", path)
        for item in (spare, *left_over):
            item.unlink(missing_ok=True)


def _is_spare(path: Path, data: Path) -> bool:
    """True for the name of a side file for a moment, which a killed process left in use."""
    return path.parent == data.parent and re.fullmatch(re.escape(data.name) + r"\.[0-9a-f]{8}", path.name) is not None


def _relocate(light: ModelProto, name: str) -> None:
    """Let the weights that lie in a side file lie in the one called `name`."""
    for tensor in light.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = name


def _inlined(model: ModelProto, folder: Path | None) -> ModelProto:
    if not any(uses_external_data(tensor) for tensor in model.graph.initializer):
        return model
    copy = ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if uses_external_data(tensor):
            tensor.raw_data = _raw(tensor, folder)
            del tensor.external_data[:]
            tensor.data_location = TensorProto.DEFAULT
    return copy


def _externalized(model: ModelProto, folder: Path | None, data: Path) -> ModelProto:
    """A copy whose large weights have been written to `data`, one after the other, never all in memory."""
    with data.open("wb") as file:
        return _split(model, data.name, lambda tensor: file.write(_raw(tensor, folder)))


def _split(model: ModelProto, location: str, write: Callable[[TensorProto], int]) -> ModelProto:
    """A copy whose large weights lie in a side file called `location`; `write` puts one there and returns its bytes."""
    copy, offset = ModelProto(), 0
    copy.CopyFrom(_without_weights(model))
    for tensor in model.graph.initializer:
        if not uses_external_data(tensor) and (_bytes(tensor) < SMALL or BITS.get(tensor.data_type, 0) < 8):
            copy.graph.initializer.append(tensor)
            continue
        light = copy.graph.initializer.add()
        light.name, light.data_type, light.doc_string = tensor.name, tensor.data_type, tensor.doc_string
        light.dims.extend(tensor.dims)
        light.metadata_props.extend(tensor.metadata_props)
        light.raw_data = b""
        size = write(tensor)
        set_external_data(light, location, offset, size)
        light.ClearField("raw_data")
        light.data_location = TensorProto.EXTERNAL
        offset += size
    return copy


def written_bytes(model: ModelProto, path: Path, *, side_file: bool) -> int:
    """Return the bytes of the files that `save_model` writes to `path`."""
    if not side_file:
        return int(model.ByteSize())
    sizes: list[int] = []

    def count(tensor: TensorProto) -> int:
        sizes.append(_bytes(tensor))
        return sizes[-1]

    return int(_split(model, side_path(path).name, count).ByteSize()) + sum(sizes)


def _raw(tensor: TensorProto, folder: Path | None) -> bytes:
    """The bytes of a weight as a side file has them."""
    if not uses_external_data(tensor):
        return tensor.raw_data if tensor.HasField("raw_data") else tensor_array(tensor, None).tobytes()
    path, offset, size = located(tensor, folder)
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


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
