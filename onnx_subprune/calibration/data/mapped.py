"""Files that are mapped: their pages count as memory of this process until they are given back."""

import mmap

import numpy as np

from onnx_subprune._typing import Array, Int64


def mapping_of(array: Array) -> mmap.mmap | None:
    """Return the read-only mapping that `array` lies in; None if it is in memory, or might have been changed there."""
    base: object = array
    read_only = False
    while isinstance(base, np.ndarray):
        read_only = read_only or (isinstance(base, np.memmap) and base.mode == "r")
        base = base.base
    return base if read_only and isinstance(base, mmap.mmap) else None


def in_memory(part: Array) -> Array:
    """Return a contiguous array; what lies in a mapped file is copied, and the file's pages are given back to the system."""
    mapping = mapping_of(part)
    if mapping is None:
        return np.asarray(part, order="C")  # a number stays one
    copy = np.array(part, order="C")
    _give_back(mapping)
    return copy


def gathered(array: Array, rows: Int64) -> Array:
    """Return a contiguous copy of some rows of an array; pages of a mapped file are given back."""
    copy = np.ascontiguousarray(np.asarray(array)[rows])
    if (mapping := mapping_of(array)) is not None:
        _give_back(mapping)
    return copy


def _give_back(mapping: mmap.mmap) -> None:
    if hasattr(mmap, "MADV_DONTNEED"):  # the pages are read again when they are looked at again
        mapping.madvise(mmap.MADV_DONTNEED)
