"""Calibration data: whatever the user has, as chunks of feeds at fixed places.

A *chunk* is a run of consecutive samples; its size depends only on the number and the size of samples (or on the model's fixed batch), so
that sums over chunks do not depend on how the data arrived.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from onnx_subprune._typing import Array, Int64
from onnx_subprune.calibration.data.mapped import gathered, in_memory
from onnx_subprune.calibration.data.ragged import Ragged
from onnx_subprune.graph.example import Example

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
    single: runs have one sample each, on the first axis, and could have more.
    rows: where on the first axis of the arrays the samples lie, ascending; None for all of them.
    """

    arrays: Mapping[str, Array | Ragged]
    chunk: int
    fixed: int | None = None
    runs: bool = False
    single: bool = False
    shared: Mapping[str, Array] = field(default_factory=dict)
    rows: Int64 | None = None

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(next(iter(self.arrays.values()))) if self.rows is None else len(self.rows)

    @property
    def ragged(self) -> bool:
        """True if samples are runs of different sizes."""
        return any(isinstance(array, Ragged) for array in self.arrays.values())

    @property
    def sample_bytes(self) -> int:
        """Bytes of a sample."""
        return sample_bytes(self.arrays)

    @property
    def uniform(self) -> bool:
        """True if there are several samples, and all are the same."""
        places = ((name, place) for place in range(1, self.samples) for name in self.arrays)
        return self.samples > 1 and all(
            np.array_equal(self.one(name, 0), self.one(name, place)) for name, place in places
        )

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
            return self.one(name, number)
        return self.between(name, number * self.chunk, (number + 1) * self.chunk)

    def one(self, name: str, place: int) -> Array:
        """Return one sample of an input, without the first axis; where samples are runs, what such a run is fed."""
        row, array = place if self.rows is None else int(self.rows[place]), self.arrays[name]
        return array.run(row) if isinstance(array, Ragged) else in_memory(array[row, ...])

    def between(self, name: str, start: int, stop: int) -> Array:
        """Return the samples from `start` to before `stop` of an input, of one size, contiguous in memory."""
        array = self._even(name)
        return in_memory(array[start:stop]) if self.rows is None else gathered(array, self.rows[start:stop])

    def all_of(self, name: str) -> Array:
        """Return all samples of an input, of one size; where they are all that there are, the array itself."""
        array = self._even(name)
        return array if self.rows is None else gathered(array, self.rows)

    def at(self, places: Int64) -> "Calibration":
        """Return the samples at `places`, ascending; no value is copied."""
        return self._resized(replace(self, rows=places if self.rows is None else self.rows[places]))

    def feeds(self, most: int) -> dict[str, Array]:
        """Return what a run on the first samples is fed: at most so many, or as many as it must be; of runs of different sizes, what a middling one is fed."""
        if self.runs:
            return {name: self.fed(name, self._middling) for name in (*self.arrays, *self.shared)}
        count = self.fixed or min(most, self.samples)
        return {name: self.between(name, 0, count) for name in self.arrays} | dict(self.shared)

    def example(self) -> Example:
        """Return a run on the first samples: two of them, or a fixed batch."""
        if self.single:
            feeds, names = self.feeds(1), frozenset(self.arrays)
            twice = {name: np.concatenate([value, value]) if name in names else value for name, value in feeds.items()}
            return Example(feeds=twice, samples=2, stacked=names, free=True, constant=frozenset(self.shared))
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
            elif isinstance(array, Ragged):
                for run in (self.one(name, place) for place in range(self.samples)):
                    digest.update(f"{run.shape}".encode() + run.tobytes())
            else:
                for start in range(0, self.samples, CHUNK):
                    digest.update(self.between(name, start, start + CHUNK).tobytes())
        return digest.hexdigest()

    def part(self, start: int, stop: int) -> "Calibration":
        """Return the chunks from number `start` to before `stop`."""
        return self._sliced(start * self.chunk, stop * self.chunk)

    def about(self, samples: int) -> "Calibration":
        """Return the first whole chunks that hold about so many samples; chunks keep their size."""
        return self.part(0, max(1, samples // self.chunk))

    def _even(self, name: str) -> Array:
        array = self.arrays[name]
        assert not isinstance(array, Ragged), "runs of different sizes are taken one by one"
        return array

    @property
    def _middling(self) -> int:
        """The place of the first run, or of one that is larger than half of the runs and smaller than the others."""
        if not self.ragged:
            return 0
        sizes = [sum(self.one(name, place).size for name in self.arrays) for place in range(self.samples)]
        return int(np.argsort(sizes, kind="stable")[self.samples // 2])

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


def sample_bytes(arrays: Mapping[str, Array | Ragged]) -> int:
    """Return the bytes of a sample."""
    return sum(array.nbytes // max(len(array), 1) for array in arrays.values())
