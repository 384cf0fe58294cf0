"""Progress on stderr: a bar in a terminal, a line for each finished stage of a long run in a pipe or a file."""

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


class Bar:
    """Progress on stderr; nothing if `quiet`."""

    def __init__(self, *, quiet: bool) -> None:
        piped = not sys.stderr.isatty()
        self._quiet, self._progress = quiet, None if quiet or piped else bar()
        self._tasks: dict[str, int] = {}
        self._start = time.perf_counter()

    def __enter__(self) -> Watch:
        if self._progress is not None:
            self._progress.start()
        return self._watch

    def __exit__(self, *error: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def _watch(self, stage: str, done: int, total: int) -> None:
        if self._progress is None:
            seconds = time.perf_counter() - self._start
            if done == total and seconds >= LONG and not self._quiet:
                print(f"progress: {stage}: {total} done after {seconds:.0f} s", file=sys.stderr, flush=True)
            return
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total)
        self._progress.update(self._tasks[stage], completed=done)  # type: ignore[arg-type]  # rich's TaskID is an int
