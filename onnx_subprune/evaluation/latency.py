"""Size and latency of models."""

from onnx_subprune._typing import Array
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.evaluation.timing import Timing, timing
from onnx_subprune.runtime.session import Runnable

RACED = 1 << 21
"""Bytes of samples that a latency is measured on: photographs are few, a round of more would take seconds."""


def raced(data: Calibration) -> int:
    """Return how many samples a latency is measured on: a chunk, or as many of it as `RACED` says if the model takes any number."""
    return data.fixed or max(1, min(data.chunk, RACED // max(data.sample_bytes, 1)))


def raced_feeds(data: Calibration, samples: int | None = None) -> dict[str, Array]:
    """Return these samples, or so many of them."""
    return data.feeds(samples or raced(data))


class Race:
    """Measures models against one original, in turns, on a chunk of the data, or less; see `raced`. samples: on so many of them."""

    def __init__(
        self, original: Runnable, data: Calibration, threads: int | None = None, samples: int | None = None
    ) -> None:
        self._original, self._threads = original.session(threads=threads), threads
        self._feeds = raced_feeds(data, samples)

    def __call__(self, model: Runnable, seconds: float = 0.5) -> Timing:
        """Return how long the original and `model` take, measured for about so many seconds."""
        return timing(self._original, model.session(threads=self._threads), self._feeds, seconds=seconds)


def measured_latency(
    original: Runnable, pruned: Runnable, data: Calibration, threads: int | None = None, seconds: float = 0.5
) -> Timing:
    """Return how long each model takes for one batch of the data, measured in turns; see `Race`."""
    return Race(original, data, threads)(pruned, seconds)


def single_latency(
    original: Runnable, pruned: Runnable, data: Calibration, threads: int | None = None, seconds: float = 0.25
) -> Timing | None:
    """Return how long each model takes for one sample; None where a batch is one anyway, or its size is fixed."""
    if data.fixed or raced(data) == 1:
        return None
    return Race(original, data, threads, 1)(pruned, seconds)
