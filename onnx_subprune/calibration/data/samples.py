"""Calibration data: whatever the user has, as chunks of feeds at fixed places.

A *chunk* is a run of consecutive samples; its size depends only on the number and the size of samples (or on the model's fixed batch), so
that sums over chunks do not depend on how the data arrived.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnx_subprune._typing import Array
from onnx_subprune.calibration.data.mapped import in_memory
from onnx_subprune.calibration.data.sources import Source, count, listed, load, read
from onnx_subprune.errors import DataError
from onnx_subprune.runtime.session import Port

CHUNK = 32
CHUNK_BYTES = 20 << 20
"""Inputs of a chunk: what comes out in between is some times as large. Every chunk costs another sum of its products, which takes a fifth of the
time of the products where maps are 7 x 7."""


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
            yield {name: self.fed(name, number) for name in self.arrays}

    def fed(self, name: str, number: int) -> Array:
        """Return what chunk `number` feeds to an input; of a mapped file it is a copy."""
        return in_memory(self.arrays[name][number * self.chunk : (number + 1) * self.chunk])

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

    def about(self, samples: int) -> "Calibration":
        """Return the first whole chunks that hold about so many samples; chunks keep their size."""
        return self.part(0, max(1, samples // self.chunk))

    def _whole(self, samples: int) -> int:
        return samples // (self.fixed or 1) * (self.fixed or 1)

    def _cut(self, start: int, stop: int) -> "Calibration":
        arrays = {name: array[start:stop] for name, array in self.arrays.items()}
        return replace(self, arrays=arrays, chunk=chunk_size(stop - start, self.fixed, _bytes_of(arrays)))


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
    where, arrays = read(source, inputs)
    _validate_names(where, arrays, inputs)
    total = len(next(iter(arrays.values())))
    used = total if samples is None else min(samples, total)
    if used < (fixed or 1):
        raise DataError(
            f"{where}: {used} samples, but the model takes batches of exactly {fixed}: give at least {fixed}, "
            "or export the model with a batch of any size"
        )
    return where, Calibration(arrays=arrays, chunk=chunk_size(total, fixed, _bytes_of(arrays)), fixed=fixed), used


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shard:
    """A run of consecutive chunks: number `first` and the following ones, of `chunks` in the whole data of `samples` samples."""

    data: Calibration
    first: int
    chunks: int
    samples: int


def shard_of(whole: Calibration, index: int, count: int) -> Shard:
    """Return shard `index` (from 0) of `count`; DataError if it would be empty."""
    chunks = whole.chunk_count
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
    loaded = load(Path(path))
    if isinstance(loaded, Mapping):
        if key not in loaded:
            raise DataError(f"{source}: the file has {listed(loaded)}; name one as {path}:KEY")
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


def _validate_names(where: str, arrays: Mapping[str, Array], inputs: Sequence[Port]) -> None:
    wanted, given = {port.name for port in inputs}, set(arrays)
    if wanted != given:
        raise DataError(
            f"{where}: has arrays for {listed(given)}, but the model's inputs are {listed(wanted)}: rename them"
        )
    if count(where, arrays) == 0:
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
            part = in_memory(array[start : start + CHUNK])
            bad = ~np.isfinite(part.reshape(len(part), -1)).all(axis=1)
            if bad.any():
                raise DataError(
                    f"{where}: input {port.name!r} holds NaN or infinity in sample {start + int(np.argmax(bad))}: leave it out"
                )
