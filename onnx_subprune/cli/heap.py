"""How the C library keeps memory while the command runs.

Activations are taken by one thread and let go of by another, a few megabytes at a time. By default the GNU C library keeps a heap
for each thread, and gives back and takes again what is free at the end of each: a tenth of the time of a pruning went into clearing pages.
"""

import contextlib
import ctypes

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, ARENA_MAX = -1, -2, -3, -8
"""Parameters of `mallopt`."""


def share_one_heap() -> None:
    """Let all threads use one heap, which keeps what is free; activations go back to the system in piles (`Store.give_back`)."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in (
            (ARENA_MAX, 1),
            (MMAP_THRESHOLD, 32 << 20),
            (TRIM_THRESHOLD, 1 << 30),
            (TOP_PAD, 64 << 20),
        ):
            mallopt(parameter, value)
