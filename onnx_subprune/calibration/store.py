"""Where activations wait between two steps of the walk: in memory up to a budget, beyond it in files of a temporary folder."""

import contextlib
import ctypes
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


@dataclass(slots=True)
class Held:
    """One array, in memory or spilled."""

    store: "Store"
    array: Array | None
    path: Path | None
    size: int

    def get(self) -> Array:
        """Return the array."""
        if self.array is not None:
            return self.array
        assert self.path is not None, "the array was let go"
        return np.asarray(np.load(self.path, allow_pickle=False))

    def free(self) -> None:
        """Give its room back; the array is gone."""
        self.store.release(self)


PILE = 256 << 20
"""Bytes that are freed before they go back to the system: that takes time, and so does getting them again."""


class Store:
    """Holds arrays within `budget` bytes of memory; the rest goes to disk. Use as a context: leaving it removes the files."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._used = 0
        self._number = 0
        self._freed = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.spilled = 0

    def put(self, array: Array) -> Held:
        """Take `array` in, which nobody may change from now on."""
        if self._used + array.nbytes <= self._budget:
            self._used += array.nbytes
            return Held(self, array, None, array.nbytes)
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="onnx-subprune-")
        self._number += 1
        path = Path(self._folder.name) / f"{self._number}.npy"
        np.save(path, array, allow_pickle=False)
        self.spilled += array.nbytes
        return Held(self, None, path, array.nbytes)

    def release(self, held: Held) -> None:
        """Forget `held`."""
        if held.array is not None:
            self._used -= held.size
            self._freed += held.size
            held.array = None
        elif held.path is not None:
            held.path.unlink(missing_ok=True)
            held.path = None

    def give_back(self) -> None:
        """Return freed memory to the system, where the C library can: it keeps pieces of the size of activations for long."""
        if self._freed >= PILE:
            self._freed = 0
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None).malloc_trim(0)

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
