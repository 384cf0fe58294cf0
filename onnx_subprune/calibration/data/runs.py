"""Parts of data put together: samples behind one another, or what runs are fed side by side."""

from collections.abc import Mapping, Sequence

import numpy as np

from onnx_subprune._typing import Array
from onnx_subprune.calibration.data.ragged import Ragged
from onnx_subprune.errors import DataError

Part = tuple[str, dict[str, Array]]
"""The name of a part of the data for messages, and its arrays by input."""


def joined(parts: Sequence[Part]) -> dict[str, Array]:
    """Return the samples of all parts, behind one another."""
    first = parts[0][1]
    for place, arrays in parts:
        count(place, arrays)
        for name, array in arrays.items():
            _same_shape(place, name, array.shape, first[name].shape)
    if len(parts) == 1:
        return first
    return {name: np.concatenate([arrays[name] for _, arrays in parts]) for name in first}


def stacked(parts: Sequence[Part]) -> Mapping[str, Array | Ragged]:
    """Return the feeds of all runs, on a new first axis, or one by one where they have different sizes."""
    first, ragged = parts[0][1], False
    for place, arrays in parts:
        for name, array in arrays.items():
            if array.ndim != first[name].ndim:
                raise DataError(f"{place}: {name!r} has shape {array.shape}, but {first[name].shape} before")
            ragged = ragged or array.shape != first[name].shape
    if ragged:
        return {name: Ragged([arrays[name] for _, arrays in parts]) for name in first}
    return {name: np.stack([arrays[name] for _, arrays in parts]) for name in first}


def of_sizes(parts: Sequence[Part], *, counted: bool) -> bool:
    """Return whether parts differ in other axes than the first, so that each is a run; in the first one too, unless it is `counted` as samples."""
    first = parts[0][1]
    if len(parts) > 1 and not counted and len({array.shape[:1] for array in first.values()}) > 1:
        return True
    return any(
        array.ndim == first[name].ndim and array.shape[1:] != first[name].shape[1:]
        for _, arrays in parts
        for name, array in arrays.items()
    )


def _same_shape(place: str, name: str, shape: tuple[int, ...], before: tuple[int, ...]) -> None:
    if shape[1:] != before[1:]:
        raise DataError(
            f"{place}: {name!r} has shape {shape}, but {before} before: only the first axis may differ; crop or pad the others to one size"
        )


def count(where: str, arrays: Mapping[str, Array]) -> int:
    """Return the number of samples, which must be the same for all inputs."""
    scalar = next((name for name, array in arrays.items() if not array.ndim), None)
    if scalar is not None:
        raise DataError(f"{where}: {scalar!r} is a single number: the first axis must count samples")
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        text = ", ".join(f"{count} of {name!r}" for name, count in sorted(counts.items()))
        raise DataError(f"{where}: the inputs have different numbers of samples: {text}")
    return next(iter(counts.values()), 0)
