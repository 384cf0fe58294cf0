"""Progress on stderr: a bar in a terminal, a line for each finished stage of a long run in a pipe or a file."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from onnx_subprune.runtime.progress import Watch

LONG = 3.0
"""Seconds from which on a run that nobody watches says what it has done."""


class Bar:
    """Progress on stderr; nothing if `quiet`."""

    def __init__(self, *, quiet: bool) -> None:
        console = Console(stderr=True)
        self._quiet, self._piped = quiet, not console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or self._piped,
            transient=True,
        )
        self._tasks: dict[str, int] = {}
        self._start = time.perf_counter()

    def __enter__(self) -> Watch:
        self._progress.start()
        return self._watch

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def _watch(self, stage: str, done: int, total: int) -> None:
        if self._piped:
            seconds = time.perf_counter() - self._start
            if done == total and seconds >= LONG and not self._quiet:
                print(f"progress: {stage}: {total} done after {seconds:.0f} s", file=sys.stderr, flush=True)
            return
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total)
        self._progress.update(self._tasks[stage], completed=done)  # type: ignore[arg-type]  # rich's TaskID is an int
