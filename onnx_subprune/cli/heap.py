"""How the C library keeps memory while the command runs.

Activations and moments are taken by one thread and let go of by another, megabytes at a time. By default the GNU C library keeps a heap
for each thread, gives back and takes again what is free at the end of each, and maps and unmaps every large array: up to a sixth of the time
of a pruning went into clearing pages.
"""

import contextlib
import ctypes

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8
"""Parameters of `mallopt`."""


def share_one_heap() -> None:
    """Let all threads use one heap, which keeps what is free, large arrays too; it goes back to the system in piles (`Store.give_back`)."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in (
            (ARENA_MAX, 1),
            (MMAP_MAX, 0),
            (TRIM_THRESHOLD, (1 << 31) - 1),
            (TOP_PAD, 64 << 20),
        ):
            mallopt(parameter, value)
