"""Progress on stderr: a bar in a terminal, a line for each finished stage of a long run in a pipe or a file, and now and then within one."""

import sys
import time
from typing import TYPE_CHECKING

from onnx_subprune.runtime.later import later
from onnx_subprune.runtime.progress import Watch

if TYPE_CHECKING:
    from onnx_subprune.cli.bar import bar
else:
    bar = later("onnx_subprune.cli.bar", "bar")

LONG = 3.0
"""Seconds from which on a run that nobody watches says what it has done."""
OFTEN = 30.0
"""Seconds after which it says something, finished or not."""


class Bar:
    """Progress on stderr; nothing if `quiet`."""

    def __init__(self, *, quiet: bool) -> None:
        piped = not sys.stderr.isatty()
        self._quiet, self._progress = quiet, None if quiet or piped else bar()
        self._tasks: dict[str, int] = {}
        self._start = self._said = time.perf_counter()

    def __enter__(self) -> Watch:
        if self._progress is not None:
            self._progress.start()
        return self._watch

    def __exit__(self, *error: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def _watch(self, stage: str, done: int, total: int) -> None:
        if self._progress is None:
            now = time.perf_counter()
            seconds, finished = now - self._start, done == total and now - self._start >= LONG
            if (finished or now - self._said >= OFTEN) and not self._quiet:
                self._said = now
                count = f"{total} done" if done == total else f"{done} of {total}"
                print(f"progress: {stage}: {count} after {seconds:.0f} s", file=sys.stderr, flush=True)
            return
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total)
        self._progress.update(self._tasks[stage], completed=done)  # type: ignore[arg-type]  # rich's TaskID is an int
