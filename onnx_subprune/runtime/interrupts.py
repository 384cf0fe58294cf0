"""Signals that end the process: held back while files are put in place, and otherwise taken as Ctrl-C is, so that nothing is left lying about."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def undisturbed() -> Iterator[None]:
    """Hold signals back until the context has ended; for steps that are short and belong together."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    before = {number: signal.getsignal(number) for number in ENDING}
    for number, handler in before.items():
        if callable(handler):
            signal.signal(number, lambda *given: came.append(given))
    try:
        yield
    finally:
        for number, handler in before.items():
            if callable(handler):
                signal.signal(number, handler)
    for number, frame in came:
        handler = before[number]
        if callable(handler):
            handler(number, frame)


def end_like_ctrl_c() -> None:
    """Let a terminated process, or one whose terminal is gone, clean up as an interrupted one does."""
    for number in ENDING[1:]:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
