"""Calibration data: whatever the user has, as chunks of feeds at fixed places.

A *chunk* is a run of consecutive samples; its size depends only on the number of samples (or on the model's fixed batch), so
that sums over chunks do not depend on how the data arrived.

Large .npy files are mapped and read chunk by chunk; everything else is read into memory once, so that generators and readers that
can be gone through only once will do.
"""

import hashlib
import os
import re
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from onnx_subprune.errors import DataError
from onnx_subprune.mapping import in_memory
from onnx_subprune.runtime import Port
from onnx_subprune.script import load_function, script_named, told

Array = NDArray[np.generic]
CHUNK = 32
MAPPED = 2**20
"""An .npy file of more bytes is mapped."""


class DataReader(Protocol):
    """onnxruntime's CalibrationDataReader; one that has a method `rewind` is rewound first."""

    def get_next(self) -> Mapping[str, Array] | None:
        """Return the next feeds, None at the end."""


Source = str | os.PathLike[str] | Array | Mapping[str, Array] | Iterable[Mapping[str, Array]] | DataReader
FORMATS = "an .npz or .npy file, a folder of them, a folder of test_data_set_*/input_*.pb, or script.py[:function]"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """Validated samples of all inputs.

    arrays: by input name, first axis the samples (memory-mapped where the file allows it).
    chunk: samples a chunk. fixed: the batch that the model insists on; then samples that do not fill one are left out.
    """

    arrays: Mapping[str, Array]
    chunk: int
    fixed: int | None = None

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(next(iter(self.arrays.values())))

    def chunks(self) -> Iterator[dict[str, Array]]:
        """Yield the feeds, chunk by chunk."""
        for start in range(0, self.samples, self.chunk):
            yield {name: in_memory(array[start : start + self.chunk]) for name, array in self.arrays.items()}

    def take(self, samples: int) -> "Calibration":
        """Return the first `samples`, or all if there are fewer; in whole fixed batches."""
        return self._cut(0, self._whole(min(samples, self.samples)))

    def rest(self, samples: int) -> "Calibration | None":
        """Return what `take(samples)` leaves, in whole fixed batches, None if that is nothing."""
        start = self._whole(min(samples, self.samples))
        left = self._whole(self.samples - start)
        return self._cut(start, start + left) if left else None

    def sha256(self) -> str:
        """Return a digest of names, types, shapes and values."""
        digest = hashlib.sha256()
        for name, array in sorted(self.arrays.items()):
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            for start in range(0, len(array), CHUNK):
                digest.update(in_memory(array[start : start + CHUNK]).tobytes())
        return digest.hexdigest()

    def part(self, start: int, stop: int) -> "Calibration":
        """Return the chunks from number `start` to before `stop`."""
        pieces = {name: array[start * self.chunk : stop * self.chunk] for name, array in self.arrays.items()}
        return replace(self, arrays=pieces)

    def _whole(self, samples: int) -> int:
        return samples // (self.fixed or 1) * (self.fixed or 1)

    def _cut(self, start: int, stop: int) -> "Calibration":
        arrays = {name: array[start:stop] for name, array in self.arrays.items()}
        return replace(self, arrays=arrays, chunk=chunk_size(stop - start, self.fixed))


def chunk_size(samples: int, fixed: int | None) -> int:
    """Return how many samples a chunk has: the model's fixed batch, else 32, or less so that there are at least four."""
    return fixed or min(CHUNK, max(1, samples // 4))


def open_data(
    source: Source, inputs: Sequence[Port], *, samples: int | None = None
) -> tuple[Calibration, Calibration | None]:
    """Return the calibration data and, where `samples` leaves some, the rest; DataError if they do not fit `inputs`.

    A model with a fixed batch is fed in that size; samples that do not fill a batch are left out.
    """
    where, whole, used = _opened(source, inputs, samples)
    _validate(where, whole.arrays, inputs)
    return whole.take(used), whole.rest(used)


def _opened(source: Source, inputs: Sequence[Port], samples: int | None) -> tuple[str, Calibration, int]:
    """Name of the source for messages, all its samples, and how many of them to use."""
    if samples is not None and samples < 1:
        raise DataError(f"at least one sample is needed, not {samples}")
    fixed = _fixed_batch(inputs)
    where, arrays = _read(source, inputs)
    _validate_names(where, arrays, inputs)
    total = len(next(iter(arrays.values())))
    used = total if samples is None else min(samples, total)
    if used < (fixed or 1):
        raise DataError(
            f"{where}: {used} samples, but the model takes batches of exactly {fixed}: give at least {fixed}, "
            "or export the model with a batch of any size"
        )
    return where, Calibration(arrays=arrays, chunk=chunk_size(total, fixed), fixed=fixed), used


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shard:
    """A run of consecutive chunks: number `first` and the following ones, of `chunks` in the whole data of `samples` samples."""

    data: Calibration
    first: int
    chunks: int
    samples: int


def shard_of(whole: Calibration, index: int, count: int) -> Shard:
    """Return shard `index` (from 0) of `count`; DataError if it would be empty."""
    chunks = -(-whole.samples // whole.chunk)
    start, stop = (chunks * place // count for place in (index, index + 1))
    if start == stop:
        raise DataError(
            f"{whole.samples} samples are {chunks} chunks of {whole.chunk}: cut them into at most {chunks} shards, not {count}"
        )
    return Shard(data=whole.part(start, stop), first=start, chunks=chunks, samples=whole.samples)


def open_shard(source: Source, inputs: Sequence[Port], index: int, count: int, *, samples: int | None = None) -> Shard:
    """Return shard `index` (from 0) of `count` of the calibration data; only the shard's own samples are looked at."""
    where, whole, used = _opened(source, inputs, samples)
    shard = shard_of(whole.take(used), index, count)
    _validate(where, shard.data.arrays, inputs)
    return shard


def read_labels(source: str) -> NDArray[np.int64]:
    """Return the labels in `y.npy` or `x.npz:key`, (samples,) int64; DataError if they are not one integer a sample."""
    named = re.fullmatch(r"(.+\.npz):(.+)", source)
    path, key = (named[1], named[2]) if named and not Path(source).exists() else (source, "")
    if Path(path).suffix not in (".npz", ".npy"):
        raise DataError(f"{source}: labels are y.npy or x.npz:KEY")
    loaded = _load(Path(path))
    if isinstance(loaded, Mapping):
        if key not in loaded:
            raise DataError(f"{source}: the file has {_list(loaded)}; name one as {path}:KEY")
        loaded = loaded[key]
    if loaded.ndim != 1 or loaded.dtype.kind not in "iu" or not len(loaded):
        raise DataError(f"{source}: labels must be one integer a sample, not {loaded.dtype} of shape {loaded.shape}")
    return loaded.astype(np.int64)


def _fixed_batch(inputs: Sequence[Port]) -> int | None:
    scalar = next((port.name for port in inputs if not port.shape), None)
    if scalar is not None:
        raise DataError(
            f"the model's input {scalar!r} has no axis of samples (it is declared without dimensions): "
            "make it an initializer, or declare its shape"
        )
    sizes = {port.name: size for port in inputs if isinstance(size := port.shape[0], int) and size > 0}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{size} of {name!r}" for name, size in sizes.items())
        raise DataError(
            f"the model's inputs take different numbers of samples at once ({told}): the first axis of each must count samples"
        )
    return next(iter(sizes.values()), None)


def _read(source: Source, inputs: Sequence[Port]) -> tuple[str, Mapping[str, Array]]:
    """Name of the source for messages, and its arrays by input."""
    if isinstance(source, (str, os.PathLike)):
        return str(source), _read_path(str(source), inputs)
    if isinstance(source, np.ndarray):
        return "the array", _single("the array", source, inputs)
    if isinstance(source, Mapping):
        return "the data", _arrays("the data", source)
    if hasattr(source, "get_next"):
        if hasattr(source, "rewind"):
            source.rewind()
        return "the data reader", _join("the data reader", _numbered("the data reader", iter(source.get_next, None)))
    if not isinstance(source, Iterable):
        raise DataError(
            f"data of type {type(source).__name__} cannot be read: give a path, an array, or dictionaries of arrays by input name"
        )
    return "the data", _join("the data", _numbered("the data", source))


def _single(where: str, array: Array, inputs: Sequence[Port]) -> Mapping[str, Array]:
    if len(inputs) != 1:
        raise DataError(
            f"{where}: one array, but the model has the inputs {_list(p.name for p in inputs)}: use an .npz with one array each"
        )
    return {inputs[0].name: array}


def _arrays(where: str, feed: object) -> dict[str, Array]:
    if not isinstance(feed, Mapping):
        raise DataError(f"{where}: is of type {type(feed).__name__}, not a dictionary of arrays by input name")
    try:
        return {str(name): np.asarray(value) for name, value in feed.items()}
    except ValueError as error:
        raise DataError(f"{where}: holds something that is not an array: {_line(error)}") from error


def _numbered(where: str, feeds: Iterable[object]) -> Iterator[tuple[str, object]]:
    return ((f"{where}, item {number}", feed) for number, feed in enumerate(feeds))


def _join(where: str, feeds: Iterable[tuple[str, object]]) -> Mapping[str, Array]:
    """The arrays of all feeds, each with a name for messages, behind one another."""
    parts: list[dict[str, Array]] = []
    for place, feed in feeds:
        parts.append(_arrays(place, feed))
        _same_kind(place, parts[-1], parts[0])
    if not parts:
        raise DataError(f"{where}: no samples at all")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _same_kind(place: str, arrays: Mapping[str, Array], first: Mapping[str, Array]) -> None:
    if set(arrays) != set(first):
        raise DataError(f"{place}: has arrays for {_list(arrays)}, but those before it for {_list(first)}")
    _count(place, arrays)
    for name, array in arrays.items():
        if array.dtype != first[name].dtype:
            raise DataError(f"{place}: {name!r} is {array.dtype}, but {first[name].dtype} before: convert one of them")
        if array.shape[1:] != first[name].shape[1:]:
            raise DataError(
                f"{place}: {name!r} has shape {array.shape}, but {first[name].shape} before: "
                "only the first axis may differ; crop or pad the others to one size"
            )


def _count(where: str, arrays: Mapping[str, Array]) -> int:
    """Return the number of samples, which must be the same for all inputs."""
    scalar = next((name for name, array in arrays.items() if not array.ndim), None)
    if scalar is not None:
        raise DataError(f"{where}: {scalar!r} is a single number: the first axis must count samples")
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count} of {name!r}" for name, count in sorted(counts.items()))
        raise DataError(f"{where}: the inputs have different numbers of samples: {told}")
    return next(iter(counts.values()), 0)


def _read_path(source: str, inputs: Sequence[Port]) -> Mapping[str, Array]:
    path, function = script_named(source) or (Path(source), "data")
    if path.is_dir():
        return _read_folder(path, inputs)
    if path.suffix == ".py" and path.exists():
        return _join(source, _numbered(source, _function(path, function)()))
    loaded = _load(path)
    return loaded if isinstance(loaded, Mapping) else _single(source, loaded, inputs)


def _load(path: Path) -> Array | Mapping[str, Array]:
    """Array or arrays of a NumPy file; its content counts, not its name."""
    if not path.exists():
        raise DataError(f"{path}: no such file; DATA is {FORMATS}")
    if path.suffix not in (".npz", ".npy"):
        raise DataError(f"{path}: unknown kind of data; DATA is {FORMATS}")
    try:
        with path.open("rb") as file:
            if file.read(2) == b"PK":
                file.seek(0)
                with np.load(file, allow_pickle=False) as archive:
                    return {name: archive[name] for name in archive.files}
        if path.stat().st_size > MAPPED:
            return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        return np.asarray(np.load(path, allow_pickle=False))
    except UNREADABLE as error:
        reason = "it is no NumPy file, or holds Python objects" if "pickle" in str(error) else _line(error)
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


def _read_folder(path: Path, inputs: Sequence[Port]) -> Mapping[str, Array]:
    files = sorted((item for item in path.iterdir() if item.suffix in (".npz", ".npy")), key=_numeric)
    sets = sorted(path.glob("test_data_set_*"), key=_numeric)
    if files:
        loaded = ((str(item), _load(item)) for item in files)
        return _join(
            str(path),
            ((name, item if isinstance(item, Mapping) else _single(name, item, inputs)) for name, item in loaded),
        )
    if sets:
        return _join(str(path), ((str(item), _read_set(item, inputs)) for item in sets))
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
            raise DataError(f"{path}: cannot be read as a tensor: {_line(error)}") from error
    return found


def _function(path: Path, name: str) -> Callable[[], Iterable[object]]:
    function = load_function(path, name)

    def call() -> Iterable[object]:
        try:
            yield from function()  # type: ignore[misc]  # what it yields is checked where it is read
        except (Exception, SystemExit) as error:
            raise DataError(f"{path}:{name}: fails: {told(error)}") from error

    return call


def _validate_names(where: str, arrays: Mapping[str, Array], inputs: Sequence[Port]) -> None:
    wanted, given = {port.name for port in inputs}, set(arrays)
    if wanted != given:
        raise DataError(
            f"{where}: has arrays for {_list(given)}, but the model's inputs are {_list(wanted)}: rename them"
        )
    if _count(where, arrays) == 0:
        raise DataError(f"{where}: no samples at all")


def _validate(where: str, arrays: Mapping[str, Array], inputs: Sequence[Port]) -> None:
    for port in inputs:
        _validate_array(where, arrays[port.name], port)


def _validate_array(where: str, array: Array, port: Port) -> None:
    if array.dtype != port.dtype:
        advice = f": convert it with .astype(numpy.{port.dtype})" if port.dtype != np.dtype(object) else ""
        raise DataError(f"{where}: input {port.name!r} is {array.dtype}, the model wants {port.dtype}{advice}")
    fits = array.ndim == len(port.shape) and all(
        not isinstance(want, int) or want <= 0 or have == want
        for have, want in zip(array.shape[1:], port.shape[1:], strict=True)
    )
    if not fits:
        shape = ", ".join(["samples", *("?" if size is None else str(size) for size in port.shape[1:])])
        raise DataError(f"{where}: input {port.name!r} has shape {array.shape}, the model wants ({shape})")
    if array.dtype.kind == "f":
        for start in range(0, len(array), CHUNK):
            part = array[start : start + CHUNK]
            bad = ~np.isfinite(part.reshape(len(part), -1)).all(axis=1)
            if bad.any():
                raise DataError(
                    f"{where}: input {port.name!r} holds NaN or infinity in sample {start + int(np.argmax(bad))}: leave it out"
                )


def _list(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names)) or "nothing"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
