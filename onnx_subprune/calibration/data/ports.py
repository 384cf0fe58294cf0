"""Which inputs have an axis of samples, and whether arrays fit them."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from onnx_subprune._typing import Array
from onnx_subprune.calibration.data.mapped import in_memory
from onnx_subprune.calibration.data.ragged import Ragged
from onnx_subprune.calibration.data.sources import listed
from onnx_subprune.errors import DataError, DataNote
from onnx_subprune.runtime.session import Port, counts_samples

LOOKED_AT = 32
"""Samples that are looked at at a time."""
NUMBERS = "fiub"


def fixed_batch(inputs: Sequence[Port]) -> int | None:
    """Return how many samples the model insists on; None if it takes any number. DataError if the first axis of some input counts something else."""
    reason = unstacked(inputs)
    if reason is not None:
        raise DataError(reason)
    return next((size for port in inputs if isinstance(size := port.shape[0], int) and size > 0), None)


def unstacked(inputs: Sequence[Port]) -> str | None:
    """Return which input cannot have its samples on the first axis, and what to do; None if all can."""
    scalar = next((port.name for port in inputs if not port.shape), None)
    if scalar is not None:
        return f"the model's input {scalar!r} has no axis of samples (it is declared without dimensions): {_instead(scalar, 'VALUE')}"
    sizes = {port.name: size for port in inputs if isinstance(size := port.shape[0], int) and size > 0}
    if len(set(sizes.values())) > 1:
        text = ", ".join(f"{size} of {name!r}" for name, size in sizes.items())
        other = min(sizes, key=lambda name: sizes[name])
        return (
            f"the model's inputs take different numbers of samples at once ({text}), so that the first axis of some counts something else: "
            f"{_instead(other)}"
        )
    mixed = len(sizes) not in (0, len(inputs))
    batches = {port.shape[0] for port in inputs if isinstance(port.shape[0], str)}
    for port in inputs:
        elsewhere = port.shape[0] not in batches and batches.intersection(port.shape[1:])
        layered = isinstance(port.shape[0], str) and (batches - {port.shape[0]}).intersection(port.shape[1:])
        if elsewhere or layered or (mixed and port.name in sizes):
            return first_axis(
                port, "as those of others do", f"give it one value for all samples (--set {port.name}=FILE.npy), or "
            )
    for port in inputs:
        behind = next((size for size in port.shape[1:] if isinstance(size, str) and counts_samples(size)), None)
        if (
            behind is not None
            and port.shape[0] != 1
            and not (isinstance(port.shape[0], str) and counts_samples(port.shape[0]))
        ):
            return first_axis(port, f"but {behind!r} does, by its name")
    return None


def first_axis(port: Port, why: str, before: str = "") -> str:
    """Return that the first axis of an input does not count samples, why, and what to do. before: what else can be done."""
    return f"the first axis of the model's input {port.name!r} {shape_of(port)} does not count samples, {why}: {before}{RUN_BY_RUN}"


RUN_BY_RUN = "feed the model run by run, as it is called (a script that yields dictionaries, a folder of test_data_set_*, a CalibrationDataReader)"


def _instead(name: str, value: str = "FILE.npy") -> str:
    return f"give it one value for all samples (--set {name}={value}), or {RUN_BY_RUN}"


def shape_of(port: Port) -> str:
    """Return a declared shape for a message."""
    return "(" + ", ".join("?" if size is None else str(size) for size in port.shape) + ")"


def validate_names(where: str, arrays: Mapping[str, Array], inputs: Sequence[Port]) -> None:
    """Raise DataError unless there is an array for each input and for nothing else."""
    wanted, given = {port.name for port in inputs}, set(arrays)
    if wanted == given:
        return
    advice = "rename them"
    if given < wanted:
        missing = sorted(wanted - given)
        advice = f"add {listed(missing)}, or give one value for all samples (--set {missing[0]}=VALUE or FILE.npy)"
    elif wanted < given:
        advice = f"leave {listed(given - wanted)} out"
    raise DataError(f"{where}: has arrays for {listed(given)}, but the model's inputs are {listed(wanted)}: {advice}")


def fitted(where: str, array: Array, port: Port, *, first: str) -> Array:
    """Return `array` in the element type of an input that it fits, else DataError.

    first: what its first axis counts, whatever the model says of it; "" where that has to be as declared.
    """
    array = converted(where, array, port)
    declared = port.shape[1:] if first else port.shape
    fits = array.ndim == len(port.shape) and all(
        not isinstance(want, int) or want <= 0 or have == want
        for have, want in zip(array.shape[bool(first) :], declared, strict=True)
    )
    if not fits:
        shape = ", ".join([*[first] * bool(first), *("?" if size is None else str(size) for size in declared)])
        raise DataError(f"{where}: input {port.name!r} has shape {array.shape}, the model wants ({shape})")
    return array


def fitted_runs(where: str, given: Ragged, port: Port) -> Ragged:
    """Return runs of different sizes in the element type of an input that they fit; DataError for one that does not, is empty or not finite."""
    converted(where, given.run(0), port)  # one note says it for all
    values = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataNote)
        for number, value in enumerate(given.values):
            values.append(fitted(f"{where}, run {number}", value, port, first=""))
            if not value.size:
                raise DataError(f"{where}: input {port.name!r} is empty, {value.shape}, in run {number}: leave it out")
            finite(where, value[None], port, "run", number)
    return Ragged(values)


def finite(where: str, array: Array, port: Port, one: str = "sample", before: int = 0) -> None:
    """Raise DataError if `array`, with samples on its first axis, holds anything but finite numbers. before: samples in front of these."""
    if array.dtype.kind == "f":
        for start in range(0, len(array), LOOKED_AT):
            part = in_memory(array[start : start + LOOKED_AT])
            bad = ~np.isfinite(part.reshape(len(part), -1)).all(axis=1)
            if bad.any():
                raise DataError(
                    f"{where}: input {port.name!r} holds NaN or infinity in {one} {before + start + int(np.argmax(bad))}: leave it out"
                )


def converted(where: str, array: Array, port: Port) -> Array:
    """Return `array` in the element type of an input; DataError if that would change a number. A note says what is converted."""
    if array.dtype == port.dtype:
        return array
    if port.dtype.kind in NUMBERS and array.dtype.kind in NUMBERS:
        with np.errstate(all="ignore"):
            other = array.astype(port.dtype)
            same = np.array_equal(other.astype(array.dtype), array, equal_nan=array.dtype.kind == "f")
        if same:
            note = (
                f"{where}: input {port.name!r} is converted from {array.dtype} to {port.dtype}, which changes no number"
            )
            warnings.warn(DataNote(note), stacklevel=2)
            return other
    if port.dtype == np.dtype(object):
        raise DataError(f"input {port.name!r} is not a numeric tensor: such models cannot be pruned")
    advice = f": convert it with .astype(numpy.{port.dtype})"
    raise DataError(f"{where}: input {port.name!r} is {array.dtype}, the model wants {port.dtype}{advice}")
