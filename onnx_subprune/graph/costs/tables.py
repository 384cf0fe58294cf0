"""Tables of what layers take: made here, kept for the next time, or read from a file."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnx import ModelProto

from onnx_subprune._typing import Array
from onnx_subprune.errors import ModelError, OptionError
from onnx_subprune.runtime.cache import keep, processor, recalled
from onnx_subprune.runtime.files import reason
from onnx_subprune.runtime.profiler.model import Model
from onnx_subprune.runtime.profiler.runs import Runs
from onnx_subprune.runtime.profiler.table import BATCHES, VERSION, table_of
from onnx_subprune.runtime.session import Runnable, environment

Table = Mapping[str, Any]
TABLES = "table"
"""What tables are called in the user's cache."""
WHOLE = 1 << 30
"""Bytes of a serialized model up to which it is profiled: it is held twice for that."""


def made_here(
    model: Runnable, feeds: Mapping[str, Array], *, threads: int | None, block: int, most: float = BATCHES
) -> Table:
    """Return the table of `model` on this machine, made in the time of `most` runs; ModelError where it cannot be profiled."""
    proto = model.model
    assert isinstance(proto, ModelProto), "models are in memory"
    if proto.ByteSize() > WHOLE:
        raise ModelError("the model is too large to be profiled")
    try:
        read = Model(proto.SerializeToString(), model.folder)
        providers = [(item.name, item.on(threads)) for item in model.providers]
        return table_of(read, feeds, Runs(threads or 0, model.folder, providers), block=block, most=most)
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise ModelError(f"the model cannot be profiled: {error}") from error


def kept_here(
    model: Runnable, feeds: Mapping[str, Array], *, threads: int | None, block: int, most: float = BATCHES
) -> Table:
    """Return the table that this machine made of the same layers, if it is fresh, or make one and keep it; see `made_here`."""
    key = key_of(model, feeds, threads, block)
    found = recalled(TABLES, key)
    if isinstance(found, dict) and found.get("version") == VERSION:
        return found
    made = made_here(model, feeds, threads=threads, block=block, most=most)
    keep(TABLES, key, made)
    return made


def key_of(model: Runnable, feeds: Mapping[str, Array], threads: int | None, block: int) -> dict[str, object]:
    """Return what a table depends on: the machine, the runtime and how it runs, the nodes, and the sizes of weights and inputs; no weight."""
    proto = model.model
    assert isinstance(proto, ModelProto), "models are in memory"
    digest = hashlib.sha256(repr([(item.domain, item.version) for item in proto.opset_import]).encode())
    for node in proto.graph.node:
        digest.update(node.SerializeToString(deterministic=True))
    weights = sorted((item.name, item.data_type, list(item.dims)) for item in proto.graph.initializer)
    digest.update(repr(weights).encode())
    return {
        "processor": processor(),
        "onnxruntime": environment()["onnxruntime"],
        "version": VERSION,
        "providers": [[item.name, item.options] for item in model.providers],
        "threads": threads or 0,
        "block": block,
        "inputs": {name: [str(array.dtype), array.shape] for name, array in sorted(feeds.items())},
        "layers": digest.hexdigest(),
    }


def read_table(path: str | os.PathLike[str]) -> Table:
    """Return the table in a file; OptionError if there is none."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OptionError(f"{path}: no table of `onnx-subprune profile`: {reason(error).lower()}") from error
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise OptionError(f"{path}: no table of `onnx-subprune profile`, or one of another version")
    return found
