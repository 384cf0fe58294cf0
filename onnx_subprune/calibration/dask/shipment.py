"""Calibration data on its way to a worker: as values, or, where they are mapped from a file, as the place in that file."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from onnx_subprune._typing import Array
from onnx_subprune.calibration.data.ragged import Ragged
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """A C-contiguous array that begins `offset` bytes into the file at `path`."""

    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    def open(self) -> Array:
        """Map it; DataError if the file is not there, or too short."""
        try:
            return np.asarray(np.memmap(self.path, self.dtype, "r", self.offset, self.shape))
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.path}: a worker cannot read it ({error}): workers read large .npy files themselves, under the same path"
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shipment:
    """A `Calibration` to be sent. arrays: its arrays; rest: it without them."""

    arrays: Mapping[str, Array | Ragged | Mapped]
    rest: Calibration

    @classmethod
    def of(cls, data: Calibration) -> "Shipment":
        """Pack `data`: of its arrays what lies between its first sample and its last."""
        rows, span = data.rows, slice(None)
        if rows is not None:
            span, rows = slice(int(rows[0]), int(rows[-1]) + 1), rows - rows[0]
        pieces = {name: array[span] for name, array in data.arrays.items()}
        arrays = {
            name: piece if isinstance(piece, Ragged) else mapped(piece) or np.ascontiguousarray(piece)
            for name, piece in pieces.items()
        }
        return cls(arrays=arrays, rest=replace(data, arrays={}, rows=rows))

    def open(self) -> Calibration:
        """Unpack it, on the worker."""
        arrays = {name: item.open() if isinstance(item, Mapped) else item for name, item in self.arrays.items()}
        return replace(self.rest, arrays=arrays)


def mapped(array: Array) -> Mapped | None:
    """Return where `array` lies in a file; None if it does not lie in one."""
    base: object = array
    while isinstance(base, np.ndarray) and isinstance(
        base.base, np.ndarray
    ):  # a slice of a mapped array keeps the offset of the whole
        base = base.base
    if not isinstance(base, np.memmap) or base.filename is None or not array.flags.c_contiguous:
        return None
    ends = [item.__array_interface__["data"][0] for item in (array, base)]
    if not 0 <= ends[0] - ends[1] <= base.nbytes - math.prod(array.shape) * array.itemsize:
        return None
    return Mapped(path=str(base.filename), offset=base.offset + ends[0] - ends[1], shape=array.shape, dtype=array.dtype)
