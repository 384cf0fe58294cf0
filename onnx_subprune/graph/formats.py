"""What a model may come as: a file, its bytes, an onnx ModelProto, an onnx_ir Model."""

import hashlib
import os
import sys
from pathlib import Path
from typing import Any, Protocol

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import ModelProto

from onnx_subprune.errors import ArgumentTypeError, ModelError
from onnx_subprune.graph.tensors import model_files


class IrModel(Protocol):
    """onnx_ir's Model, as far as it is looked at here; the package itself is not needed."""

    @property
    def ir_version(self) -> int | None:
        """Version of the format."""

    @property
    def graph(self) -> Any:
        """The graph, with its initializers."""


Model = ModelProto | bytes | str | os.PathLike[str] | IrModel
"""A model in memory or as a file's bytes, or the path of a file, which may have side files beside it."""


def read_model(model: Model) -> tuple[ModelProto, Path | None]:
    """Return the proto of a model, and the folder of its side files, None where it cannot have any.

    Raises ModelError if it cannot be read, ArgumentTypeError if it is no model.
    """
    if isinstance(model, ModelProto):
        return model, None
    if isinstance(model, bytes):
        return _parsed(model), None
    if not isinstance(model, (str, os.PathLike)):
        return _from_ir(model)
    path = Path(model)
    if not path.is_file():
        raise ModelError(f"{path}: is a folder; name the file in it" if path.is_dir() else f"{path}: no such file")
    try:
        proto = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise ModelError(f"{path}: not an ONNX model, or truncated: {line_of(error)}") from error
    if not proto.graph.node:
        raise ModelError(f"{path}: not an ONNX model, or one without nodes")
    return proto, path.parent


def _parsed(text: bytes) -> ModelProto:
    try:
        proto = ModelProto()
        proto.ParseFromString(text)
    except DecodeError as error:
        raise ModelError(f"the bytes are not an ONNX model, or truncated: {line_of(error)}") from error
    if not proto.graph.node:
        raise ModelError("the bytes are not an ONNX model, or one without nodes")
    return proto


def _from_ir(model: object) -> tuple[ModelProto, Path | None]:
    library: Any = sys.modules.get("onnx_ir")  # who has such a model has imported it
    if library is None or not isinstance(model, library.Model):
        raise ArgumentTypeError(
            f"model is of type {type(model).__name__}: give the path of an .onnx file, its bytes, an onnx.ModelProto or an onnx_ir.Model"
        )
    weights = [value.const_value for value in model.graph.initializers.values()]
    folders = {os.fspath(item.base_dir) for item in weights if isinstance(item, library.ExternalTensor)}
    if len(folders) > 1:
        raise ModelError(f"the model's side files lie in several folders ({', '.join(sorted(folders))}): save it first")
    proto: ModelProto = library.to_proto(model)
    return proto, Path(folders.pop()) if folders else None


def identity(model: Model) -> dict[str, str]:
    """Return path and digest of a model, as reports have them."""
    if isinstance(model, bytes):
        return {"path": "(in memory)", "sha256": hashlib.sha256(model).hexdigest()}
    if not isinstance(model, (str, os.PathLike)):
        return {"path": "(in memory)", "sha256": ""}
    with open(model, "rb") as file:
        return {"path": str(model), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def line_of(error: Exception) -> str:
    """Return what an error says, in one short line."""
    return " ".join(str(error).split())[:160]


def given_bytes(model: Model, proto: ModelProto) -> int:
    """Return the bytes of a model as it was given: of its files, where it is one, side files included; read as `proto`."""
    if isinstance(model, (str, os.PathLike)):
        return sum(path.stat().st_size for path in model_files(Path(model)))
    return len(model) if isinstance(model, bytes) else model_bytes(proto)


def model_bytes(model: ModelProto) -> int:
    """Return the size of a model in bytes, side files included."""
    return int(model.ByteSize()) + sum(
        int(entry.value)
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "length"
    )
