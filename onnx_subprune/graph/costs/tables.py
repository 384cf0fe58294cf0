"""Tables of what layers take: made here, or read from a file."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnx import ModelProto

from onnx_subprune._typing import Array
from onnx_subprune.errors import ModelError, OptionError
from onnx_subprune.runtime.files import reason
from onnx_subprune.runtime.profiler.model import Model
from onnx_subprune.runtime.profiler.runs import Runs
from onnx_subprune.runtime.profiler.table import VERSION, table_of
from onnx_subprune.runtime.session import Runnable

Table = Mapping[str, Any]
WHOLE = 1 << 30
"""Bytes of a serialized model up to which it is profiled: it is held twice for that."""


def made_here(model: Runnable, feeds: Mapping[str, Array], *, threads: int | None, block: int) -> Table:
    """Return the table of `model` on this machine; ModelError where it cannot be profiled."""
    proto = model.model
    assert isinstance(proto, ModelProto), "models are in memory"
    if proto.ByteSize() > WHOLE:
        raise ModelError("the model is too large to be profiled")
    try:
        read = Model(proto.SerializeToString(), model.folder)
        providers = [(item.name, item.on(threads)) for item in model.providers]
        return table_of(read, feeds, Runs(threads or 0, model.folder, providers), block=block)
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise ModelError(f"the model cannot be profiled: {error}") from error


def read_table(path: str | os.PathLike[str]) -> Table:
    """Return the table in a file; OptionError if there is none."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OptionError(f"{path}: no table of `onnx-subprune profile`: {reason(error).lower()}") from error
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise OptionError(f"{path}: no table of `onnx-subprune profile`, or one of another version")
    return found
