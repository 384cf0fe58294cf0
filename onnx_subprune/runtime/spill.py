"""Where activations wait between two steps of the walk: in memory up to a budget, beyond it in files of a temporary folder."""

import bisect
import shutil
import tempfile
import weakref
from collections.abc import Hashable, Iterator, MutableMapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np

from onnx_subprune._typing import Array
from onnx_subprune.errors import OutputError
from onnx_subprune.runtime.memory import give_back, in_use, resident

Key = TypeVar("Key", bound=Hashable)


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
"""Bytes that are freed, or half of what may be held, before they go back to the system: that takes time, and getting them again more."""


class Store:
    """Holds arrays within `budget` bytes of memory; the rest goes to disk. Leaving it as a context removes the files, and so does its end.

    spare: while the process uses less than so many bytes, it holds more. ceiling: above so many, it does not, and what is freed goes
    back to the system.
    """

    def __init__(self, budget: int, spare: int = 0, ceiling: int = 0) -> None:
        self.budget = budget
        self._spare, self._ceiling = spare, ceiling
        self._used = 0
        self._number = 0
        self._freed = 0
        self._folder: Path | None = None
        self._spare_files: list[tuple[int, Path]] = []
        self.spilled = 0

    def put(self, array: Array) -> Held:
        """Take `array` in, which nobody may change from now on; OutputError if there is no room for it on disk."""
        if self._used + array.nbytes <= self.budget or self._spared(array.nbytes):
            self._used += array.nbytes
            return Held(self, array, None, array.nbytes)
        try:
            path = self._file(array.nbytes)
            with path.open("r+b") as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
        except OSError as error:
            raise OutputError(
                f"activations that exceed --memory cannot be written to {tempfile.gettempdir()} ({error.strerror or error}): "
                "set TMPDIR to a folder with more room, or use more --memory or fewer --samples"
            ) from error
        self.spilled += array.nbytes
        return Held(self, None, path, array.nbytes)

    def _spared(self, size: int) -> bool:
        """True if there is room for so many bytes beyond the budget."""
        return in_use() + size <= self._spare and resident() <= self._ceiling

    def _file(self, size: int) -> Path:
        """Return a file for so many bytes: one that is free, for what it holds in memory is cheaper to write over than to get anew."""
        if self._spare_files:
            place = bisect.bisect_left(self._spare_files, size, key=itemgetter(0))
            return self._spare_files.pop(min(place, len(self._spare_files) - 1))[1]
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="onnx-subprune-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._number += 1
        path = self._folder / f"{self._number}.npy"
        path.touch()
        return path

    def release(self, held: Held) -> None:
        """Forget `held`."""
        if held.array is not None:
            self._used -= held.size
            self._freed += held.size
            held.array = None
        elif held.path is not None:
            if held.path.exists():  # not after the end of the store
                bisect.insort(self._spare_files, (held.path.stat().st_size, held.path))
            held.path = None

    def give_back(self) -> None:
        """Return freed memory to the system, where the C library can: it keeps pieces of the size of activations for long."""
        if self._freed >= max(PILE, self.budget // 2) and resident() > self._ceiling:
            self._freed = 0
            give_back()

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


class Shelf(MutableMapping[Key, Array]):
    """Arrays by some key, within `budget` bytes of memory, the rest on disk; an array is read each time that it is asked for."""

    def __init__(self, budget: int) -> None:
        self._store = Store(budget)
        self._held: dict[Key, Held] = {}

    def __setitem__(self, key: Key, array: Array) -> None:
        if key in self._held:
            self._held[key].free()
        self._held[key] = self._store.put(array)

    def __getitem__(self, key: Key) -> Array:
        return self._held[key].get()

    def __delitem__(self, key: Key) -> None:
        self._held.pop(key).free()

    def __iter__(self) -> Iterator[Key]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)
