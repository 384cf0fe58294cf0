"""Data of any kind read as samples that fit a model, all of them or a shard."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from onnx_subprune._typing import Array
from onnx_subprune.calibration.data.archive import Extent
from onnx_subprune.calibration.data.constants import constant_values
from onnx_subprune.calibration.data.ports import (
    RUN_BY_RUN,
    converted,
    finite,
    first_axis,
    fitted,
    fitted_runs,
    fixed_batch,
    shape_of,
    unstacked,
    validate_names,
)
from onnx_subprune.calibration.data.ragged import Ragged
from onnx_subprune.calibration.data.runs import count, joined, of_sizes, stacked
from onnx_subprune.calibration.data.samples import Calibration, chunk_size, sample_bytes
from onnx_subprune.calibration.data.separate import counted, independent, separate
from onnx_subprune.calibration.data.sources import Given, Source, read
from onnx_subprune.errors import DataError, DataNote
from onnx_subprune.graph.example import Example
from onnx_subprune.runtime.session import Port, Runnable, counts_samples

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
    given, whole, used = _opened(source, inputs, reading)
    whole = _validated(given.where, whole, inputs)
    _check_samples(given, whole, inputs, reading)
    return whole.take(used), whole.rest(used)


def _opened(source: Source, inputs: Sequence[Port], reading: Reading) -> tuple[Given, Calibration, int]:
    """What the source has, all its samples, and how many of them to use."""
    if reading.samples is not None and reading.samples < 1:
        raise DataError(f"at least one sample is needed, not {reading.samples}")
    shared = constant_values(reading.constants, inputs)
    ports = [port for port in inputs if port.name not in shared]
    if not ports:
        raise DataError("all inputs of the model have constant values: what the samples differ in is no input")
    given = read(source, ports, reading.extent)
    for place, arrays in given.parts[:1]:
        validate_names(place if given.runs else given.where, arrays, ports)
    given, scalars = _without_scalars(given, ports)
    shared = {**shared, **scalars}
    ports = [port for port in ports if port.name not in scalars]
    whole = _calibration(given, ports, reading, shared)
    used = whole.samples if reading.samples is None else min(reading.samples, whole.samples)
    if used < (whole.fixed or 1):
        raise DataError(
            f"{given.where}: {used} samples, but the model takes batches of exactly {whole.fixed}: give at least {whole.fixed}, "
            "or export the model with a batch of any size"
        )
    return given, whole, used


def _without_scalars(given: Given, ports: Sequence[Port]) -> tuple[Given, dict[str, Array]]:
    """The data without the single numbers in a file that inputs without any axis are given, which hold for all samples, and these."""
    if given.runs or len(given.parts) != 1:
        return given, {}
    place, arrays = given.parts[0]
    alone = [port for port in ports if not port.shape and not arrays[port.name].ndim]
    if not alone or len(alone) == len(ports):
        return given, {}
    found = {port.name: converted(place, arrays[port.name], port) for port in alone}
    return replace(given, parts=[(place, {name: array for name, array in arrays.items() if name not in found})]), found


def _calibration(given: Given, ports: Sequence[Port], reading: Reading, shared: Mapping[str, Array]) -> Calibration:
    """Samples on the first axis, or runs as they are."""
    firsts = [port.shape[0] for port in ports if port.shape]
    if of_sizes(given.parts, counted=any(isinstance(size, str) and counts_samples(size) for size in firsts)):
        single = _single(given, ports, reading, shared)
        return Calibration(arrays=stacked(given.parts), chunk=1, runs=True, single=single, shared=shared)
    if given.runs and (unstacked(ports) is not None or not _joinable(given, ports, reading, shared)):
        return Calibration(arrays=stacked(given.parts), chunk=1, runs=True, shared=shared)
    fixed = fixed_batch(ports)
    arrays = joined(given.parts)
    total = count(given.where, arrays)
    if total == 0:
        raise DataError(f"{given.where}: no samples at all")
    if reading.samples is not None and total > reading.samples + JUDGES:  # what is behind is not even looked at
        total = reading.samples + JUDGES
        arrays = {name: array[:total] for name, array in arrays.items()}
    return Calibration(arrays=arrays, chunk=chunk_size(total, fixed, sample_bytes(arrays)), fixed=fixed, shared=shared)


def _single(given: Given, ports: Sequence[Port], reading: Reading, shared: Mapping[str, Array]) -> bool:
    """True if every run has one sample on the first axis of all inputs, and the model takes several at once and treats them one by one."""
    if reading.model is None or unstacked(ports) is not None or fixed_batch(ports) is not None:
        return False
    if any(array.shape[:1] != (1,) for _, arrays in given.parts for array in arrays.values()):
        return False
    place, arrays = given.parts[0]
    feeds = {port.name: converted(place, arrays[port.name], port) for port in ports}
    return separate(reading.model, feeds, feeds, shared)


def _joinable(given: Given, ports: Sequence[Port], reading: Reading, shared: Mapping[str, Array]) -> bool:
    """True unless the model says that the first axes of what a run is fed do not count samples."""
    fixed = fixed_batch(ports)
    if reading.model is None or fixed == 1:
        return True
    feeds = [
        {port.name: converted(place, arrays[port.name], port) for port in ports} for place, arrays in given.parts[:2]
    ]
    for place, arrays in given.parts[:2]:
        if any(not array.ndim for array in arrays.values()) or not count(place, arrays):
            return True  # an error that is raised later
    if any(array.shape[1:] != feeds[0][name].shape[1:] for name, array in feeds[-1].items()):
        return True  # and so is this
    if fixed is not None:
        return independent(reading.model, feeds[0], 0, shared) is not False
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
    given, whole, used = _opened(source, inputs, reading)
    first = _validated(given.where, whole.take(min(used, whole.fixed or 2)), inputs)
    _check_samples(given, first, inputs, reading)
    shard = shard_of(whole.take(used), index, count)
    return replace(shard, data=_validated(given.where, shard.data, inputs), example=first.example())


def _validated(where: str, data: Calibration, inputs: Sequence[Port]) -> Calibration:
    """The data in the model's element types; DataError if they do not fit."""
    ports = {port.name: port for port in inputs}
    one = "run" if data.runs else "sample"
    arrays: dict[str, Array | Ragged] = {}
    for name, array in data.arrays.items():
        if isinstance(array, Ragged):
            arrays[name] = fitted_runs(where, array, ports[name])
            continue
        arrays[name] = values = converted(where, array, ports[name])
        fitted(where, values[0] if data.runs else values, ports[name], first="" if data.runs else "samples")
        finite(where, values, ports[name], one)
    return replace(data, arrays=arrays)


def _check_samples(given: Given, data: Calibration, inputs: Sequence[Port], reading: Reading) -> None:
    """DataError where the first axis counts something else than samples, as the model shows; a note where that may be so."""
    if given.runs or data.runs or reading.model is None or data.fixed == 1:
        return
    where, ports = given.where, [port for port in inputs if port.name in data.arrays]
    if all(isinstance(port.shape[0], str) and counts_samples(port.shape[0]) for port in ports):
        return
    feeds = {port.name: data.between(port.name, 0, data.fixed or min(LOOKED_AT, data.samples)) for port in ports}
    if independent(reading.model, feeds, 0, data.shared) is not False:
        return
    for axis in range(1, min(array.ndim for array in feeds.values())):
        if independent(reading.model, feeds, axis, data.shared):
            raise DataError(f"{where}: {first_axis(ports[0], f'axis {axis} does')}")
    if data.fixed is not None and not counted(reading.model, feeds, 0, data.shared):
        raise DataError(f"{where}: {first_axis(ports[0], 'for no output has so many')}")
    note = (
        f"{where}: what the model makes of a sample depends on the others beside it; if the first axis of {ports[0].name!r} "
        f"{shape_of(ports[0])} counts something else, {RUN_BY_RUN}"
    )
    warnings.warn(DataNote(note), stacklevel=2)


LOOKED_AT = 4
"""Samples of the run that shows whether they are some."""
