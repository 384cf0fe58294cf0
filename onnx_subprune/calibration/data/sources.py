"""Where calibration data come from: files, folders, scripts, readers and arrays, as arrays by input.

Large .npy files are mapped; everything else is read into memory once, so that generators and readers that can be gone through only
once will do.
"""

import os
import re
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from onnx_subprune._typing import Array
from onnx_subprune.calibration.data.archive import ALL, Extent, read_archive
from onnx_subprune.calibration.data.feed_json import read_feed_json
from onnx_subprune.calibration.data.runs import Part
from onnx_subprune.calibration.data.script import load_function, message_of, script_named
from onnx_subprune.errors import ArgumentTypeError, DataError
from onnx_subprune.runtime.session import Port

MAPPED = 2**20
"""An .npy file of more bytes is mapped."""


class DataReader(Protocol):
    """onnxruntime's CalibrationDataReader; one that has a method `rewind` is rewound first."""

    def get_next(self) -> Mapping[str, Array] | None:
        """Return the next feeds, None at the end."""


Feed = Mapping[str, Array] | Sequence[Array] | Array
"""Arrays of a run by input, or in the order of the inputs; one alone for a model with one input."""
Source = str | os.PathLike[str] | Array | Mapping[str, Array] | Iterable[Feed] | DataReader | Callable[[], "Source"]
FORMATS = "an .npz or .npy file, a folder of them, a folder of test_data_set_*/input_*.pb, Polygraphy's .json, or script.py[:function]"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Given:
    """What a source has. where: its name for messages. runs: each part is what a run of the model is fed, not just some samples."""

    where: str
    parts: Sequence[Part]
    runs: bool


def read(source: Source, inputs: Sequence[Port], extent: Extent = ALL) -> Given:
    """Return what `source` has for `inputs`."""
    if isinstance(source, (str, os.PathLike)):
        return _read_path(str(source), inputs, extent)
    if hasattr(source, "__array__"):  # NumPy's, and those of other libraries
        return _stack("the array", _single("the array", np.asarray(source), inputs))
    if isinstance(source, Mapping):
        return _stack("the data", _arrays("the data", source, inputs))
    if hasattr(source, "get_next"):
        if hasattr(source, "rewind"):
            source.rewind()
        return _runs("the data reader", _numbered("the data reader", iter(source.get_next, None)), inputs)
    if callable(source):
        return read(source(), inputs, extent)
    if not isinstance(source, Iterable) or isinstance(source, (bytes, bytearray)):
        raise ArgumentTypeError(
            f"data is of type {type(source).__name__}: give a path, an array, a dictionary of arrays by input name, an iterable of those (a "
            "DataLoader, a generator, a list), a CalibrationDataReader, or a function that returns one of them"
        )
    return _runs("the data", _numbered("the data", source), inputs)


def _stack(where: str, arrays: dict[str, Array]) -> Given:
    return Given(where=where, parts=[(where, arrays)], runs=False)


def _runs(where: str, feeds: Iterable[tuple[str, object]], inputs: Sequence[Port]) -> Given:
    return Given(where=where, parts=_parts(where, feeds, inputs), runs=True)


def _single(where: str, array: Array, inputs: Sequence[Port]) -> dict[str, Array]:
    if len(inputs) != 1:
        raise DataError(
            f"{where}: one array, but the model has the inputs {listed(p.name for p in inputs)}: use an .npz with one array each"
        )
    return {inputs[0].name: array}


def _arrays(where: str, feed: object, inputs: Sequence[Port]) -> dict[str, Array]:
    """The arrays of a feed by input; a tuple or list has those of all inputs in their order."""
    if hasattr(feed, "__array__") and len(inputs) == 1:
        feed = [feed]
    if isinstance(feed, (tuple, list)):
        if len(feed) != len(inputs):
            raise DataError(
                f"{where}: a {type(feed).__name__} of {len(feed)}, but the model has the inputs {', '.join(repr(p.name) for p in inputs)}: "
                "one array each in this order, without labels, or a dictionary of arrays by input name"
            )
        feed = {port.name: value for port, value in zip(inputs, feed, strict=True)}
    if not isinstance(feed, Mapping):
        raise DataError(f"{where}: is of type {type(feed).__name__}, not a dictionary of arrays by input name")
    if list(feed) == [UNNAMED] and len(inputs) == 1:
        feed = {inputs[0].name: feed[UNNAMED]}
    try:
        return {str(name): np.asarray(value) for name, value in feed.items()}
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{where}: holds something that is not an array: {line_of(error)}") from error


UNNAMED = "arr_0"
"""The name that numpy.savez gives the first array without one."""


def _numbered(where: str, feeds: Iterable[object]) -> Iterator[tuple[str, object]]:
    return ((f"{where}, item {number}", feed) for number, feed in enumerate(feeds))


def _parts(where: str, feeds: Iterable[tuple[str, object]], inputs: Sequence[Port]) -> list[Part]:
    """The arrays of all feeds, each with a name for messages."""
    parts: list[Part] = []
    for place, feed in feeds:
        arrays = _arrays(place, feed, inputs)
        first = parts[0][1] if parts else arrays
        if set(arrays) != set(first):
            raise DataError(f"{place}: has arrays for {listed(arrays)}, but those before it for {listed(first)}")
        for name, array in arrays.items():
            if array.dtype != first[name].dtype:
                raise DataError(
                    f"{place}: {name!r} is {array.dtype}, but {first[name].dtype} before: convert one of them"
                )
        parts.append((place, arrays))
    if not parts:
        raise DataError(f"{where}: no samples at all")
    return parts


def _read_path(source: str, inputs: Sequence[Port], extent: Extent) -> Given:
    path, function = script_named(source) or (Path(source), "data")
    if path.is_dir():
        return _read_folder(path, inputs)
    if path.suffix == ".py" and path.exists():
        return _runs(source, _numbered(source, _function(path, function)()), inputs)
    if path.suffix == ".json" and path.exists():
        return _runs(source, _numbered(source, read_feed_json(path)), inputs)
    loaded = load(path, extent)
    return _stack(
        source, _arrays(source, loaded, inputs) if isinstance(loaded, Mapping) else _single(source, loaded, inputs)
    )


def load(path: Path, extent: Extent = ALL) -> Array | Mapping[str, Array]:
    """Return the array or arrays of a NumPy file, to the extent that is wanted; its content counts, not its name."""
    if not path.exists():
        raise DataError(f"{path}: no such file; DATA is {FORMATS}")
    if path.suffix not in (".npz", ".npy"):
        raise DataError(f"{path}: unknown kind of data; DATA is {FORMATS}")
    try:
        with path.open("rb") as file:
            if file.read(2) == b"PK":
                return read_archive(path, extent)
        if path.stat().st_size > MAPPED:
            return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        return np.asarray(np.load(path, allow_pickle=False))
    except UNREADABLE as error:
        reason = "it is no NumPy file, or holds Python objects" if "pickle" in str(error) else line_of(error)
        raise DataError(
            f"{path}: cannot be read as {path.suffix}: {reason}; save arrays of numbers with numpy.save or numpy.savez"
        ) from error


UNREADABLE = (
    ValueError,
    TypeError,
    KeyError,
    OSError,
    EOFError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy and zipfile raise on broken files."""


def _read_folder(path: Path, inputs: Sequence[Port]) -> Given:
    files = sorted((item for item in path.iterdir() if item.suffix in (".npz", ".npy")), key=_numeric)
    sets = sorted(path.glob("test_data_set_*"), key=_numeric)
    if files:
        loaded = ((str(item), load(item)) for item in files)
        feeds = ((name, item if isinstance(item, Mapping) else _single(name, item, inputs)) for name, item in loaded)
        return Given(where=str(path), parts=_parts(str(path), feeds, inputs), runs=False)
    if sets:
        return _runs(str(path), ((str(item), _read_set(item, inputs)) for item in sets), inputs)
    raise DataError(f"{path}: nothing to read in this folder; DATA is {FORMATS}")


def _numeric(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Sort key by which 2 comes before 10."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


def _read_set(folder: Path, inputs: Sequence[Port]) -> Mapping[str, Array]:
    """The inputs of the model in their order, as in the tests of ONNX."""
    found = {}
    for index, port in enumerate(inputs):
        path = folder / f"input_{index}.pb"
        tensor = onnx.TensorProto()
        try:
            tensor.ParseFromString(path.read_bytes())
            found[port.name] = np.asarray(onnx.numpy_helper.to_array(tensor))
        except FileNotFoundError as error:
            raise DataError(
                f"{path}: no such file; the model has {len(inputs)} inputs, {port.name!r} among them"
            ) from error
        except (OSError, DecodeError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}: cannot be read as a tensor: {line_of(error)}") from error
    return found


def _function(path: Path, name: str) -> Callable[[], Iterable[object]]:
    function = load_function(path, name)

    def call() -> Iterable[object]:
        try:
            yield from function()  # type: ignore[misc]  # what it yields is checked where it is read
        except (Exception, SystemExit) as error:
            raise DataError(f"{path}:{name}: fails: {message_of(error)}") from error

    return call


def listed(names: Iterable[str]) -> str:
    """Return names for a message."""
    return ", ".join(repr(name) for name in sorted(names)) or "nothing"


def line_of(error: BaseException) -> str:
    """Return what an error says, in one short line."""
    return " ".join(str(error).split())[:160]
