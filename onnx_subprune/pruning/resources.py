"""How much of the data, the machine and the time may be used."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx_subprune._typing import Array
from onnx_subprune.calibration.data.holdout import Holdout
from onnx_subprune.calibration.streaming.settings import Running
from onnx_subprune.errors import OptionError, at_least, typed_fields
from onnx_subprune.graph.observation import Observation
from onnx_subprune.runtime.placement import ON_PROCESSOR, Placement, placed
from onnx_subprune.runtime.providers import providers_of
from onnx_subprune.runtime.session import Runnable

MOST = 1024
"""Threads: thousands of them are more than a process gets, or start for minutes."""


@typed_fields
@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """How much of the data and of the machine may be used.

    samples: the first so many for calibration (None: all). holdout: a number of samples, or a fraction of them, that nothing is fitted to nor chosen
    by, on which the result is judged (None: the samples that `samples` leaves, or else an eighth, at least 16 where there are 64 and at most 512,
    a quarter of fewer, none of fewer than 8; 0: none, so that the result is judged on what it was fitted to). batch_size: at most
    so many samples in one run. threads: None for all cores. memory: bytes to aim at; activations that have no room there go to
    disk (None: a quarter of the machine's). positions: so many output positions of a sample are drawn where a convolution has at least three times as many
    (None: enough for 128 rows a column). shifts: add copies of all images, moved by a pixel (None: where most weights lie in layers with few
    rows a column, and a pass stays short; else a mirrored copy of each where that helps; False: none; see `shifts`). trials: widths to try
    on a quarter of the samples after fitting on the others (None: up to 24 where a pass is short and much goes, four where groups are many; see
    `budgets.trials`). mask: the input (samples, positions) whose zeros hide
    positions (None: the one that hides them from the attention, if there is one; see `masks`). providers: execution providers of onnxruntime that
    calibration and timing run on, such as "cuda" or "openvino:device_type=GPU" (see `placement`). Raises OptionError for numbers that make no sense.
    """

    samples: int | None = None
    holdout: Holdout = None
    batch_size: int = 32
    threads: int | None = None
    memory: int | None = None
    positions: int | None = None
    shifts: bool | None = None
    trials: int | None = None
    mask: str | None = None
    providers: str | Sequence[str] = ()

    def __post_init__(self) -> None:
        at_least(1, samples=self.samples, batch_size=self.batch_size, memory=self.memory, positions=self.positions)
        at_least(0, trials=self.trials)
        check_threads(self.threads)
        providers_of(self.providers)

    def placement(self, model: Runnable, feeds: Mapping[str, Array]) -> Placement:
        """Return where `model` runs, found out on `feeds`; see `placed`."""
        providers = providers_of(self.providers)
        return placed(model, feeds, providers, self.threads) if providers else ON_PROCESSOR


def check_threads(threads: int | None) -> None:
    """Raise OptionError for numbers of threads that no machine runs."""
    if threads is not None and not 1 <= threads <= MOST:
        raise OptionError(f"--threads {threads}: at least 1, at most {MOST}")


def running_of(resources: Resources, seen: Observation, placement: Placement = ON_PROCESSOR) -> Running:
    """Return how a model is run that `seen` is about, and where."""
    return Running(
        batch_size=resources.batch_size,
        threads=resources.threads,
        positions=resources.positions,
        rows=seen.rows,
        opaque=seen.opaque,
        placement=placement,
    )


def memory_of(resources: Resources) -> int:
    """Return the bytes to aim at: as given, or a quarter of the machine's memory."""
    if resources.memory is not None:
        return resources.memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
