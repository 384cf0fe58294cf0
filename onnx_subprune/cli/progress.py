"""Progress on stderr."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from onnx_subprune.runtime.progress import Watch


class Bar:
    """A progress bar on stderr, where that is a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
            transient=True,
        )
        self._tasks: dict[str, int] = {}

    def __enter__(self) -> Watch:
        self._progress.start()
        return self._watch

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def _watch(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total)
        self._progress.update(self._tasks[stage], completed=done)  # type: ignore[arg-type]  # rich's TaskID is an int
