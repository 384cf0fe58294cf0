"""The file: an .npz (zip of .npy members, never pickled) with a header and, for each contraction and half, unrounded sums.

Members are `header` and `K/HALF/NAME`: contraction K of the header's list, the even (0) or odd (1) chunks, NAME as in
`Collector.state`. They are read one contraction at a time, so a file may be larger than memory.
"""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from onnx_subprune._typing import Array
from onnx_subprune.calibration.data.sources import UNREADABLE
from onnx_subprune.calibration.files.header import Header
from onnx_subprune.calibration.files.sums import Sums, check_state
from onnx_subprune.calibration.moments.accumulator import Collector
from onnx_subprune.calibration.moments.moments import Moments
from onnx_subprune.errors import DataError, ModelError
from onnx_subprune.graph.contractions.kernel import Kernel
from onnx_subprune.runtime.files import replacing
from onnx_subprune.selection.linalg.rounding import energies


class StatisticsFile:
    """A file of moments, open for reading; use as a context. Raises DataError if it is not one, or not whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise DataError(f"{path}: no such file; `onnx-subprune collect` writes files of moments")
        try:
            self._archive = zipfile.ZipFile(path)
            broken = self._archive.testzip()
            self.header = Header.from_array(self._member("header"))
        except UNREADABLE as error:
            raise DataError(
                f"{path}: not a file of moments, or truncated ({_line(error)}): collect this shard again"
            ) from error
        if broken is not None:
            raise DataError(f"{path}: damaged (checksum of {broken!r}): collect this shard again")
        self._members = set(self._archive.namelist())

    def state(self, number: int, half: int) -> dict[str, Array]:
        """Return the sums over the even (0) or odd (1) chunks of contraction `number` of the header's list, as `Collector.state`."""
        prefix = f"{number}/{half}/"
        names = sorted(name for name in self._members if name.startswith(prefix))
        try:
            return {name.removeprefix(prefix).removesuffix(".npy"): self._member(name[:-4]) for name in names}
        except UNREADABLE as error:
            raise DataError(f"{self.path}: damaged ({_line(error)}): collect this shard again") from error

    def collector(self, number: int, half: int, kernel: Kernel, groups: int, columns: int) -> Collector:
        """Return the same as a collector; DataError if they are not the sums of a contraction with so many columns in so many groups."""
        try:
            state = self.state(number, half)
            check_state(state)
            collector = Collector.restore(kernel, state)
            found = collector.moments()
        except (KeyError, ValueError, IndexError, TypeError, AssertionError, OverflowError, ModelError) as error:
            raise DataError(f"{self.path}: the sums of {kernel.node} do not fit the model: {_line(error)}") from error
        if found.gram.shape != (groups, columns, columns) or found.sum_input.shape != (groups, columns):
            raise DataError(f"{self.path}: the sums of {kernel.node} do not fit the model: collect them of this one")
        if not (np.isfinite(found.gram).all() and np.isfinite(found.sum_input).all()):
            raise DataError(
                f"{self.path}: the sums of {kernel.node} are not finite: the activations there are too large"
            )
        if not _possible(found):
            raise DataError(
                f"{self.path}: the sums of {kernel.node} are sums of no rows at all: the file is damaged; collect again"
            )
        return collector

    def _member(self, name: str) -> Array:
        with self._archive.open(f"{name}.npy") as file:
            return np.asarray(np.lib.format.read_array(file, allow_pickle=False))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.close()


class Writer:
    """Puts members into a file that is being written."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def header(self, header: Header) -> None:
        """Write the header."""
        self._put("header", header.to_array())

    def sums(self, number: int, half: int, sums: Sums) -> None:
        """Write one half of the sums of contraction `number`."""
        for name, array in sorted(sums.state().items()):
            self._put(f"{number}/{half}/{name}", array)

    def _put(self, name: str, array: Array) -> None:
        member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
        with self._archive.open(member, "w", force_zip64=True) as file:
            np.lib.format.write_array(file, array, allow_pickle=False)


@contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """Write a file that appears at `path` whole when the context ends well, and not at all otherwise; OutputError."""
    with replacing(path) as new, zipfile.ZipFile(new, "w", zipfile.ZIP_STORED) as archive:
        yield Writer(archive)


LARGEST = 1e80
"""Activations that are larger than can be squared in float32 are refused where sums are taken."""


def _possible(found: Moments) -> bool:
    """True if there are rows that have such sums: no product is larger than its factors' lengths allow (Cauchy and Schwarz)."""
    lengths = energies(found.gram)
    if found.count < 1 or (lengths < 0).any() or (lengths > LARGEST).any():
        return False
    lengths = np.sqrt(lengths)
    least = 1e-6 * lengths.max(initial=0.0) ** 2  # rounding
    gram = np.abs(found.gram) <= (1 + 1e-6) * lengths[:, :, None] * lengths[:, None, :] + least
    means = np.abs(found.sum_input) <= (1 + 1e-6) * np.sqrt(found.count) * lengths + 1e-3 * np.sqrt(found.count * least)
    return bool(gram.all() and means.all())


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
