"""How often the model is run to measure sensitivities: networks of many groups try fewer widths of each, on fewer samples."""

from collections.abc import Iterable

from onnx_subprune.reconstruction.task import Task

SAMPLES, FEWER, FEWEST = 256, 96, 48
"""Samples that widths are tried on; as many as there are trials for, but so many at least, and where all widths would be dear on these."""
PASSES, DEAR = 20, 60
"""What trials may cost in units of a pass over all samples, as far as samples can be left out; from what on, on `FEWER` samples, fewer widths are tried."""


def dear(task: Task, trials: Iterable[tuple[float, int]]) -> bool:
    """Return True where trials on `FEWER` samples cost more than `DEAR` passes. trials: how many run what lies behind a node, by its place."""
    return _runs(task, trials) * min(1.0, FEWER / task.data.samples) > DEAR


def samples_for(task: Task, trials: Iterable[tuple[float, int]], *, least: int = FEWER) -> int:
    """Return how many samples every trial is run on, from where the model changes on."""
    affordable = int(PASSES * task.data.samples / max(_runs(task, trials), 1e-9))
    return max(least, min(SAMPLES, affordable), 2 * task.data.chunk)  # a chunk of each half, however large they are


def _runs(task: Task, trials: Iterable[tuple[float, int]]) -> float:
    """How often the whole model would be run for them."""
    count = max(1, len(task.network.nodes))
    return sum(times * (1.0 - first / count) for times, first in trials)
