"""How often the model is run to measure sensitivities: networks of many groups try fewer widths of each, on fewer samples."""

from collections.abc import Iterable

from onnx_subprune.reconstruction.task import Task

SAMPLES, FEWER, FEWEST = 256, 96, 48
"""Samples that widths are tried on; those below which fewer widths are; and the fewest where there are very many trials all the same."""
PASSES = 20
"""What trials may cost in units of a pass over all samples, as far as samples can be left out."""


def affordable(task: Task, trials: Iterable[tuple[float, int]]) -> float:
    """Return on how many samples so many trials may be run. trials: how many run what lies behind a node, by its place."""
    count = max(1, len(task.network.nodes))
    runs = sum(times * (1.0 - first / count) for times, first in trials)
    return PASSES * task.data.samples / max(runs, 1e-9)


def samples_for(task: Task, trials: Iterable[tuple[float, int]]) -> int:
    """Return how many samples every trial is run on, from where the model changes on."""
    enough = max(FEWEST, min(SAMPLES, int(affordable(task, trials))))
    return max(enough, 2 * task.data.chunk)  # a chunk of each half, however large they are
