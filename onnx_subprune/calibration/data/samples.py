"""Calibration data: whatever the user has, as chunks of feeds at fixed places.

A *chunk* is a run of consecutive samples; its size depends only on the number and the size of samples (or on the model's fixed batch), so
that sums over chunks do not depend on how the data arrived.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnx_subprune._typing import Array, Int64
from onnx_subprune.calibration.data.archive import Extent
from onnx_subprune.calibration.data.constants import constant_values
from onnx_subprune.calibration.data.mapped import gathered, in_memory
from onnx_subprune.calibration.data.ports import converted, finite, fitted, fixed_batch, unstacked, validate_names
from onnx_subprune.calibration.data.separate import separate
from onnx_subprune.calibration.data.sources import Given, Source, count, joined, listed, load, read, stacked
from onnx_subprune.errors import DataError
from onnx_subprune.graph.feeds import Example
from onnx_subprune.runtime.session import Port, Runnable

CHUNK = 32
CHUNK_BYTES = 20 << 20
"""Inputs of a chunk: what comes out in between is some times as large. Every chunk costs another sum of its products, which takes a fifth of the
time of the products where maps are 7 x 7."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """Validated samples of all inputs.

    arrays: by input name, first axis the samples (memory-mapped where the file allows it).
    chunk: samples a chunk. fixed: the batch that the model insists on; then samples that do not fill one are left out.
    runs: a sample is all that a run is fed, and is fed as it is, without the first axis. shared: inputs that are the same for all samples.
    rows: where on the first axis of the arrays the samples lie, ascending; None for all of them.
    """

    arrays: Mapping[str, Array]
    chunk: int
    fixed: int | None = None
    runs: bool = False
    shared: Mapping[str, Array] = field(default_factory=dict)
    rows: Int64 | None = None

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(next(iter(self.arrays.values()))) if self.rows is None else len(self.rows)

    @property
    def sample_bytes(self) -> int:
        """Bytes of a sample."""
        return _bytes_of(self.arrays)

    @property
    def chunk_count(self) -> int:
        """Number of chunks; the last one may be smaller."""
        return -(-self.samples // self.chunk)

    def chunks(self) -> Iterator[dict[str, Array]]:
        """Yield the feeds, chunk by chunk."""
        for number in range(self.chunk_count):
            yield {name: self.fed(name, number) for name in (*self.arrays, *self.shared)}

    def fed(self, name: str, number: int) -> Array:
        """Return what chunk `number` feeds to an input; of a mapped file it is a copy."""
        if name in self.shared:
            return self.shared[name]
        if self.runs:
            return in_memory(self.arrays[name][number if self.rows is None else self.rows[number], ...])
        return self.between(name, number * self.chunk, (number + 1) * self.chunk)

    def between(self, name: str, start: int, stop: int) -> Array:
        """Return the samples from `start` to before `stop` of an input, contiguous in memory."""
        if self.rows is None:
            return in_memory(self.arrays[name][start:stop])
        return gathered(self.arrays[name], self.rows[start:stop])

    def all_of(self, name: str) -> Array:
        """Return all samples of an input; where they are all that there are, the array itself."""
        return self.arrays[name] if self.rows is None else gathered(self.arrays[name], self.rows)

    def at(self, places: Int64) -> "Calibration":
        """Return the samples at `places`, ascending; no value is copied."""
        return self._resized(replace(self, rows=places if self.rows is None else self.rows[places]))

    def feeds(self, most: int) -> dict[str, Array]:
        """Return what a run on the first samples is fed: at most so many, or as many as it must be."""
        if self.runs:
            return {name: self.fed(name, 0) for name in (*self.arrays, *self.shared)}
        count = self.fixed or min(most, self.samples)
        return {name: self.between(name, 0, count) for name in self.arrays} | dict(self.shared)

    def example(self) -> Example:
        """Return a run on the first samples: two of them, or a fixed batch."""
        return Example(
            feeds=self.feeds(2),
            samples=1 if self.runs else self.fixed or min(2, self.samples),
            stacked=frozenset() if self.runs else frozenset(self.arrays),
            free=self.fixed is None and not self.runs,
            constant=frozenset(self.shared),
        )

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
        for name, array in sorted({**self.arrays, **self.shared}.items()):
            shape = array.shape if name in self.shared else (self.samples, *array.shape[1:])
            digest.update(f"{name} {array.dtype.str} {shape}".encode())
            if name in self.shared:
                digest.update(np.ascontiguousarray(array).tobytes())
                continue
            for start in range(0, self.samples, CHUNK):
                digest.update(self.between(name, start, start + CHUNK).tobytes())
        return digest.hexdigest()

    def part(self, start: int, stop: int) -> "Calibration":
        """Return the chunks from number `start` to before `stop`."""
        return self._sliced(start * self.chunk, stop * self.chunk)

    def about(self, samples: int) -> "Calibration":
        """Return the first whole chunks that hold about so many samples; chunks keep their size."""
        return self.part(0, max(1, samples // self.chunk))

    def _whole(self, samples: int) -> int:
        return samples // (self.fixed or 1) * (self.fixed or 1)

    def _cut(self, start: int, stop: int) -> "Calibration":
        return self._resized(self._sliced(start, stop))

    def _sliced(self, start: int, stop: int) -> "Calibration":
        if self.rows is None:
            return replace(self, arrays={name: array[start:stop] for name, array in self.arrays.items()})
        return replace(self, rows=self.rows[start:stop])

    def _resized(self, part: "Calibration") -> "Calibration":
        """The part with chunks as its number of samples wants them."""
        return replace(part, chunk=1 if self.runs else chunk_size(part.samples, self.fixed, self.sample_bytes))


def chunk_size(samples: int, fixed: int | None, each: int = 0) -> int:
    """Return how many samples a chunk has: the model's fixed batch, else 32, or less so that there are at least four.

    each: bytes of a sample; with many, chunks are a half, a quarter ... of 32.
    """
    most = CHUNK
    while most > 1 and most * each > CHUNK_BYTES:
        most //= 2
    return fixed or min(most, max(1, samples // 4))


def _bytes_of(arrays: Mapping[str, Array]) -> int:
    """Bytes of a sample."""
    return sum(array.nbytes // max(len(array), 1) for array in arrays.values())


LEAST, JUDGES = 16, 512
"""Where only the first samples are wanted, at most so many others are read to judge by; where they must be unpacked, an eighth, at least 16."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """How data are read. samples: the first so many are for calibration, None for all. constants: values of inputs that are the same for all samples.

    model: tells whether what is fed run by run is samples that may be put together; None: the declared shapes do.
    memory: bytes that files may unpack to; None for any number. labelled: all samples are read, since there are labels for all.
    """

    samples: int | None = None
    constants: Mapping[str, Array] = field(default_factory=dict)
    model: Runnable | None = None
    memory: int | None = None
    labelled: bool = False

    @property
    def extent(self) -> Extent:
        """What is unpacked: the samples to use, and some more to judge by."""
        spare = 0 if self.samples is None else min(JUDGES, max(LEAST, self.samples // 8))
        return Extent(None if self.samples is None or self.labelled else self.samples + spare, self.memory)


def open_data(
    source: Source, inputs: Sequence[Port], *, samples: int | None = None, reading: Reading = Reading()
) -> tuple[Calibration, Calibration | None]:
    """Return the calibration data and, where `samples` leaves some, the rest; DataError if they do not fit `inputs`.

    A model with a fixed batch is fed in that size; samples that do not fill a batch are left out. What comes run by run is fed as it is, unless
    its first axes count samples.
    """
    reading = reading if samples is None else replace(reading, samples=samples)
    where, whole, used = _opened(source, inputs, reading)
    whole = _validated(where, whole, inputs)
    return whole.take(used), whole.rest(used)


def _opened(source: Source, inputs: Sequence[Port], reading: Reading) -> tuple[str, Calibration, int]:
    """Name of the source for messages, all its samples, and how many of them to use."""
    if reading.samples is not None and reading.samples < 1:
        raise DataError(f"at least one sample is needed, not {reading.samples}")
    shared = constant_values(reading.constants, inputs)
    ports = [port for port in inputs if port.name not in shared]
    if not ports:
        raise DataError("all inputs of the model have constant values: what the samples differ in is no input")
    given = read(source, ports, reading.extent)
    for place, arrays in given.parts[:1]:
        validate_names(place if given.runs else given.where, arrays, ports)
    whole = _calibration(given, ports, reading, shared)
    used = whole.samples if reading.samples is None else min(reading.samples, whole.samples)
    if used < (whole.fixed or 1):
        raise DataError(
            f"{given.where}: {used} samples, but the model takes batches of exactly {whole.fixed}: give at least {whole.fixed}, "
            "or export the model with a batch of any size"
        )
    return given.where, whole, used


def _calibration(given: Given, ports: Sequence[Port], reading: Reading, shared: Mapping[str, Array]) -> Calibration:
    """Samples on the first axis, or runs as they are."""
    if given.runs and (unstacked(ports) is not None or not _joinable(given, ports, reading, shared)):
        arrays = stacked(given.parts)
        return Calibration(arrays=arrays, chunk=1, runs=True, shared=shared)
    fixed = fixed_batch(ports)
    arrays = joined(given.parts)
    total = count(given.where, arrays)
    if total == 0:
        raise DataError(f"{given.where}: no samples at all")
    if reading.samples is not None and total > reading.samples + JUDGES:  # what is behind is not even looked at
        total = reading.samples + JUDGES
        arrays = {name: array[:total] for name, array in arrays.items()}
    return Calibration(arrays=arrays, chunk=chunk_size(total, fixed, _bytes_of(arrays)), fixed=fixed, shared=shared)


def _joinable(given: Given, ports: Sequence[Port], reading: Reading, shared: Mapping[str, Array]) -> bool:
    """True unless the model says that the first axes of what a run is fed do not count samples."""
    if reading.model is None or fixed_batch(ports) is not None:
        return True
    feeds = [
        {port.name: converted(place, arrays[port.name], port) for port in ports} for place, arrays in given.parts[:2]
    ]
    for place, arrays in given.parts[:2]:
        if any(not array.ndim for array in arrays.values()) or not count(place, arrays):
            return True  # an error that is told later
    return separate(reading.model, feeds[0], feeds[1] if len(feeds) > 1 else None, shared)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shard:
    """A run of consecutive chunks: number `first` and the following ones, of `chunks` in the whole data of `samples` samples.

    example: a run on the first samples of the whole data.
    """

    data: Calibration
    first: int
    chunks: int
    samples: int
    example: Example


def shard_of(whole: Calibration, index: int, count: int) -> Shard:
    """Return shard `index` (from 0) of `count`; DataError if it would be empty."""
    chunks = whole.chunk_count
    start, stop = (chunks * place // count for place in (index, index + 1))
    if start == stop:
        raise DataError(
            f"{whole.samples} samples are {chunks} chunks of {whole.chunk}: cut them into at most {chunks} shards, not {count}"
        )
    return Shard(
        data=whole.part(start, stop), first=start, chunks=chunks, samples=whole.samples, example=whole.example()
    )


def open_shard(
    source: Source,
    inputs: Sequence[Port],
    index: int,
    count: int,
    *,
    samples: int | None = None,
    reading: Reading = Reading(),
) -> Shard:
    """Return shard `index` (from 0) of `count` of the calibration data; only the shard's own samples are looked at."""
    reading = reading if samples is None else replace(reading, samples=samples)
    where, whole, used = _opened(source, inputs, reading)
    first = _validated(where, whole.take(min(used, whole.fixed or 2)), inputs)
    shard = shard_of(whole.take(used), index, count)
    return replace(shard, data=_validated(where, shard.data, inputs), example=first.example())


def _validated(where: str, data: Calibration, inputs: Sequence[Port]) -> Calibration:
    """The data in the model's element types; DataError if they do not fit."""
    ports = {port.name: port for port in inputs}
    one = "run" if data.runs else "sample"
    arrays = {}
    for name, array in data.arrays.items():
        arrays[name] = converted(where, array, ports[name])
        one_run = arrays[name][0] if data.runs else arrays[name]
        fitted(where, one_run, ports[name], first="" if data.runs else "samples")
        finite(where, arrays[name], ports[name], one)
    return replace(data, arrays=arrays)


def read_labels(labels: str | os.PathLike[str] | ArrayLike) -> NDArray[np.int64]:
    """Return labels, those in `y.npy` or `x.npz:key`, or as they are, (samples,) int64; DataError if they are not one integer a sample."""
    if not isinstance(labels, (str, os.PathLike)):
        return _labels("labels", np.asarray(labels))
    source = os.fspath(labels)
    named = re.fullmatch(r"(.+\.npz):(.+)", source)
    path, key = (named[1], named[2]) if named and not Path(source).exists() else (source, "")
    if Path(path).suffix not in (".npz", ".npy"):
        raise DataError(f"{source}: labels are y.npy or x.npz:KEY")
    loaded = load(Path(path))
    if isinstance(loaded, Mapping):
        if key not in loaded:
            raise DataError(f"{source}: the file has {listed(loaded)}; name one as {path}:KEY")
        loaded = loaded[key]
    return _labels(source, loaded)


def _labels(where: str, labels: Array) -> NDArray[np.int64]:
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        raise DataError(f"{where}: labels must be one integer a sample, not {labels.dtype} of shape {labels.shape}")
    return labels.astype(np.int64)
