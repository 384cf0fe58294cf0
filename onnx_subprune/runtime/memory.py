"""What memory this process takes, and how the C library keeps it.

Activations and moments are taken by one thread and let go of by another, megabytes at a time. By default the GNU C library keeps a heap
for each thread, gives back and takes again what is free at the end of each, and maps and unmaps every large array: up to a sixth of the time
of a pruning went into clearing pages.
"""

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import ClassVar

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8
"""Parameters of `mallopt`."""


class _Mallinfo2(ctypes.Structure):
    """What the GNU C library tells of its heaps."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


def share_one_heap() -> None:
    """Let all threads use one heap, which keeps what is free, large arrays too; it goes back to the system in piles (`Store.give_back`)."""
    mallopt = _function("mallopt")
    if mallopt is not None:
        for parameter, value in (
            (ARENA_MAX, 1),
            (MMAP_MAX, 0),
            (TRIM_THRESHOLD, (1 << 31) - 1),
            (TOP_PAD, 64 << 20),
        ):
            mallopt(parameter, value)


def give_back() -> None:
    """Return free memory to the system, where the C library can."""
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def resident() -> float:
    """Return the bytes of memory that this process takes; infinity where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return float("inf")


def in_use() -> float:
    """Return the bytes that this process has asked for and not let go of; where the C library does not say, those that it takes.

    The difference is free, but still the process's own: to fill it takes no more memory.
    """
    mallinfo2 = _function("mallinfo2")
    if mallinfo2 is None:
        return resident()
    mallinfo2.restype = _Mallinfo2
    found = mallinfo2()
    return float(found.uordblks + found.hblkhd)


@cache
def _function(name: str) -> "ctypes._NamedFuncPointer | None":
    """A function of the C library; None if it has none of that name."""
    try:
        found: ctypes._NamedFuncPointer = getattr(ctypes.CDLL(None), name)
    except (OSError, TypeError, AttributeError):
        return None
    return found
