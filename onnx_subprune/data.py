"""Calibration data: whatever the user has, as chunks of feeds at fixed places.

A *chunk* is a run of consecutive samples; its size depends only on the number of samples (or on the model's fixed batch), so
that sums over chunks do not depend on how the data arrived.
"""

import hashlib
import importlib.util
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from onnx_subprune.errors import DataError
from onnx_subprune.runtime import Port

Array = NDArray[np.generic]
CHUNK = 32


class DataReader(Protocol):
    """onnxruntime's CalibrationDataReader."""

    def get_next(self) -> Mapping[str, Array] | None:
        """Return the next feeds, None at the end."""


Source = str | os.PathLike[str] | Array | Mapping[str, Array] | Iterable[Mapping[str, Array]] | DataReader
FORMATS = "an .npz or .npy file, a folder of them, a folder of test_data_set_*/input_*.pb, or script.py[:function]"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """Validated samples of all inputs.

    arrays: by input name, first axis the samples (memory-mapped where the file allows it).
    chunk: samples a chunk.
    """

    arrays: Mapping[str, Array]
    chunk: int

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(next(iter(self.arrays.values())))

    def chunks(self) -> Iterator[dict[str, Array]]:
        """Yield the feeds, chunk by chunk."""
        for start in range(0, self.samples, self.chunk):
            yield {name: np.ascontiguousarray(array[start : start + self.chunk]) for name, array in self.arrays.items()}

    def sha256(self) -> str:
        """Return a digest of names, types, shapes and values."""
        digest = hashlib.sha256()
        for name, array in sorted(self.arrays.items()):
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            for start in range(0, len(array), CHUNK):
                digest.update(np.ascontiguousarray(array[start : start + CHUNK]).tobytes())
        return digest.hexdigest()


def chunk_size(samples: int, fixed: int | None) -> int:
    """Return how many samples a chunk has: the model's fixed batch, else 32, or less so that there are at least four."""
    return fixed or min(CHUNK, max(1, samples // 4))


def open_data(
    source: Source, inputs: Sequence[Port], *, samples: int | None = None
) -> tuple[Calibration, Calibration | None]:
    """Return the calibration data and, where `samples` leaves some, the rest; DataError if they do not fit `inputs`."""
    where, arrays = _read(source, inputs)
    _validate(where, arrays, inputs)
    fixed = _fixed_batch(inputs)
    total = len(next(iter(arrays.values())))
    if samples is not None and samples < 1:
        raise DataError(f"{where}: at least one sample is needed, not {samples}")
    used = min(total, samples or total)
    if fixed:
        used = used // fixed * fixed
        if used == 0:
            raise DataError(
                f"{where}: {total} samples, but the model takes batches of exactly {fixed}: give at least {fixed}"
            )
    first = Calibration(arrays={name: array[:used] for name, array in arrays.items()}, chunk=chunk_size(used, fixed))
    left = (total - used) // (fixed or 1) * (fixed or 1)
    if left == 0:
        return first, None
    rest = {name: array[used : used + left] for name, array in arrays.items()}
    return first, Calibration(arrays=rest, chunk=chunk_size(left, fixed))


def read_labels(source: str) -> NDArray[np.int64]:
    """Return the labels in `y.npy` or `x.npz:key`, (samples,) int64."""
    name, _, key = source.partition(":") if ".npz:" in source else (source, "", "")
    loaded = _load(Path(name))
    if isinstance(loaded, Mapping):
        if key not in loaded:
            raise DataError(f"{source}: the file has {_list(loaded)}; name one as {name}:KEY")
        loaded = loaded[key]
    if loaded.ndim != 1 or loaded.dtype.kind not in "iu" or not len(loaded):
        raise DataError(f"{source}: labels must be one integer a sample, not {loaded.dtype} of shape {loaded.shape}")
    return loaded.astype(np.int64)


def _fixed_batch(inputs: Sequence[Port]) -> int | None:
    sizes = {size for port in inputs for size in port.shape[:1] if isinstance(size, int) and size > 0}
    return max(sizes) if sizes else None


def _read(source: Source, inputs: Sequence[Port]) -> tuple[str, Mapping[str, Array]]:
    """Name of the source for messages, and its arrays by input."""
    if isinstance(source, (str, os.PathLike)):
        return str(source), _read_path(str(source), inputs)
    if isinstance(source, np.ndarray):
        return "the array", _single("the array", source, inputs)
    if isinstance(source, Mapping):
        return "the data", source
    if hasattr(source, "get_next"):
        return "the data reader", _join("the data reader", iter(source.get_next, None))
    return "the data", _join("the data", source)


def _single(where: str, array: Array, inputs: Sequence[Port]) -> Mapping[str, Array]:
    if len(inputs) != 1:
        raise DataError(
            f"{where}: one array, but the model has the inputs {_list(p.name for p in inputs)}: use an .npz with one array each"
        )
    return {inputs[0].name: array}


def _join(where: str, feeds: Iterable[object]) -> Mapping[str, Array]:
    parts: dict[str, list[Array]] = {}
    for feed in feeds:
        if not isinstance(feed, Mapping):
            raise DataError(f"{where}: yields {type(feed).__name__}, not dictionaries of arrays by input name")
        for name, array in feed.items():
            parts.setdefault(str(name), []).append(np.asarray(array))
    if not parts:
        raise DataError(f"{where}: no samples at all")
    try:
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}
    except ValueError as error:
        raise DataError(f"{where}: the arrays do not fit behind one another: {error}") from error


def _read_path(source: str, inputs: Sequence[Port]) -> Mapping[str, Array]:
    script, _, function = source.partition(":") if ".py:" in source else (source, "", "data")
    path = Path(script)
    if path.is_dir():
        return _read_folder(path, inputs)
    if not path.exists():
        raise DataError(f"{source}: no such file; DATA is {FORMATS}")
    if path.suffix == ".py":
        return _join(source, _function(path, function)())
    loaded = _load(path)
    return loaded if isinstance(loaded, Mapping) else _single(source, loaded, inputs)


def _load(path: Path) -> Array | Mapping[str, Array]:
    if path.suffix not in (".npz", ".npy"):
        raise DataError(f"{path}: unknown kind of data; DATA is {FORMATS}")
    try:
        if path.suffix == ".npy":
            return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: cannot be read as {path.suffix}: {_line(error)}; save it with numpy.save or numpy.savez"
        ) from error


def _read_folder(path: Path, inputs: Sequence[Port]) -> Mapping[str, Array]:
    sets = sorted(path.glob("test_data_set_*"))
    files = sorted(item for item in path.iterdir() if item.suffix in (".npz", ".npy"))
    if files:
        loaded = (_load(item) for item in files)
        return _join(
            str(path), (item if isinstance(item, Mapping) else _single(str(path), item, inputs) for item in loaded)
        )
    if sets:
        return _join(str(path), (_read_set(item, inputs) for item in sets))
    raise DataError(f"{path}: nothing to read in this folder; DATA is {FORMATS}")


def _read_set(folder: Path, inputs: Sequence[Port]) -> Mapping[str, Array]:
    found = {}
    for index, port in enumerate(inputs):
        path = folder / f"input_{index}.pb"
        tensor = onnx.TensorProto()
        try:
            tensor.ParseFromString(path.read_bytes())
            found[port.name] = np.asarray(onnx.numpy_helper.to_array(tensor))
        except (OSError, DecodeError, ValueError, TypeError) as error:
            raise DataError(f"{path}: cannot be read as a tensor: {_line(error)}") from error
    return found


def _function(path: Path, name: str) -> Callable[[], Iterable[object]]:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise DataError(f"{path}: the script fails: {type(error).__name__}: {_line(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise DataError(f"{path}: has no function {name!r}; name one as {path.name}:FUNCTION")

    def call() -> Iterable[object]:
        try:
            yield from function()
        except Exception as error:
            raise DataError(f"{path}:{name}: fails: {type(error).__name__}: {_line(error)}") from error

    return call


def _validate(where: str, arrays: Mapping[str, Array], inputs: Sequence[Port]) -> None:
    wanted, given = {port.name for port in inputs}, set(arrays)
    if wanted != given:
        raise DataError(
            f"{where}: has arrays for {_list(given)}, but the model's inputs are {_list(wanted)}: rename them"
        )
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise DataError(f"{where}: the inputs have different numbers of samples: {counts}")
    if min(counts.values()) == 0:
        raise DataError(f"{where}: no samples at all")
    for port in inputs:
        _validate_array(where, arrays[port.name], port)


def _validate_array(where: str, array: Array, port: Port) -> None:
    if array.dtype != port.dtype:
        advice = f": convert it with .astype(numpy.{port.dtype})" if port.dtype != np.dtype(object) else ""
        raise DataError(f"{where}: input {port.name!r} is {array.dtype}, the model wants {port.dtype}{advice}")
    fits = array.ndim == len(port.shape) and all(
        not isinstance(want, int) or want <= 0 or have == want
        for have, want in zip(array.shape[1:], port.shape[1:], strict=False)
    )
    if not fits:
        shape = ", ".join("samples" if i == 0 else str(size) for i, size in enumerate(port.shape))
        raise DataError(f"{where}: input {port.name!r} has shape {array.shape}, the model wants ({shape})")
    if array.dtype.kind == "f":
        for start in range(0, len(array), CHUNK):
            part = array[start : start + CHUNK].astype(np.float32, copy=False)
            bad = ~np.isfinite(part.reshape(len(part), -1)).all(axis=1)
            if bad.any():
                raise DataError(
                    f"{where}: input {port.name!r} holds NaN or infinity in sample {start + int(np.argmax(bad))}: leave it out"
                )


def _list(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names)) or "nothing"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
