"""Values of inputs that are the same for all samples: a sampling rate, anchors, a table of classes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from onnx_subprune._typing import Array
from onnx_subprune.calibration.data.ports import converted, fitted
from onnx_subprune.calibration.data.sources import listed, load
from onnx_subprune.errors import DataError, OptionError, meant
from onnx_subprune.runtime.session import Port

Constant = Array | float | Sequence[float]


def constant_values(constants: Mapping[str, Constant], inputs: Sequence[Port]) -> dict[str, Array]:
    """Return the arrays that these inputs are fed; a number fills an input whose shape is declared. DataError if one does not fit."""
    ports = {port.name: port for port in inputs}
    unknown = sorted(set(constants) - set(ports))
    if unknown:
        raise OptionError(
            f"--set {unknown[0]}: the model has no such input{meant(unknown[0], ports)} its inputs are {listed(ports)}"
        )
    return {name: _value(name, np.asarray(value), ports[name]) for name, value in constants.items()}


def _value(name: str, value: Array, port: Port) -> Array:
    where = f"--set {name}"
    if value.dtype.kind in "fiu" and not value.ndim and port.shape:
        sizes = [size for size in port.shape if isinstance(size, int) and size > 0]
        if len(sizes) < len(port.shape):
            raise DataError(
                f"{where}: one number, but the input is declared with open sizes: give the whole array as {name}=FILE.npy"
            )
        value = np.full(sizes, value)
    if value.dtype == np.float64 and port.dtype.kind == "f":  # numbers that were written down
        value = value.astype(port.dtype)
    return np.ascontiguousarray(fitted(where, value, port, first="")) if value.ndim else converted(where, value, port)


def constants_named(texts: Sequence[str]) -> dict[str, Constant]:
    """Return what NAME=VALUE and NAME=FILE.npy say; OptionError if that is nothing."""
    found: dict[str, Constant] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value) or name in found:
            raise OptionError(f"--set {text!r}: write it as NAME=VALUE or NAME=FILE.npy, once for an input")
        found[name] = _read(text, value)
    return found


def _read(text: str, value: str) -> Constant:
    if value.endswith(".npy"):
        loaded = load(Path(value))
        if isinstance(loaded, Mapping):
            raise OptionError(f"--set {text!r}: {value} holds several arrays; save one with numpy.save")
        return loaded
    try:
        read = np.asarray(json.loads(value))
    except (ValueError, RecursionError):
        read = np.asarray(None)
    if read.dtype.kind not in "fiub":
        raise OptionError(
            f"--set {text!r}: {value!r} is no number, list of numbers, true or false, and no path of a .npy file"
        )
    return read
