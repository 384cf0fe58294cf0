"""How models are run, and how much of large maps and of many samples is looked at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from onnx_subprune.runtime.placement import ON_PROCESSOR, Placement
from onnx_subprune.runtime.providers import Provider
from onnx_subprune.runtime.session import Session
from onnx_subprune.runtime.threads import cores_of, threads_each
from onnx_subprune.runtime.weights import Model


class Opener(Protocol):
    """Makes sessions, or has one that is made already."""

    def __call__(
        self, model: Model | bytes, threads: int | None, folder: Path | None, providers: Sequence[Provider]
    ) -> Session:
        """Return a session for `model` on these providers."""


def new_session(
    model: Model | bytes, threads: int | None, folder: Path | None, providers: Sequence[Provider]
) -> Session:
    """Make a session; see `Opener`."""
    return Session(model, threads=threads, folder=folder, providers=providers, part=True)


ROWS = 128
"""Rows of the unfolded input for each of its columns; on large maps there are many more, and they tell nothing more."""

ENOUGH_ROWS = 32
"""Of so many samples that there are so many rows a column the others tell next to nothing: three residual networks had the same accuracy."""
ENOUGH_SAMPLES, ENOUGH_POSITIONS = 128, 1 << 15
"""Samples and output positions in all that are looked at, however few columns there are. With 64 samples ResNet-56 at an eighth of its MACs had 75.6 %
over five calibration sets, with 128 76.2, with all 512 76.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """How models are run: at most `batch_size` samples at once, on `threads` threads (None: all), in sessions that `session` makes.

    rows: of tensors that hold samples one after another on their first axis, how many rows each has; 0 of those that are the same for any
    samples. They alone are cut into pieces; see `Observation.rows`.
    opaque: what cannot be held between two runs; see `Observation`.
    positions: at most so many output positions of a sample of a convolution count in its moments (None: enough for `ROWS`
    rows a column). mask: the input whose zeros hide positions; None: all are seen. placement: on which providers; workers of a cluster go by
    `placement.calibrated` alone.
    """

    batch_size: int = 32
    threads: int | None = None
    session: Opener = new_session
    positions: int | None = None
    mask: str | None = None
    rows: Mapping[str, int] = field(default_factory=dict)
    opaque: frozenset[str] = frozenset()
    placement: Placement = ON_PROCESSOR

    def positions_of(self, samples: int, columns: int) -> int:
        """Return how many output positions of each of `samples` count for a convolution with so many columns a group."""
        return self.positions or -(-ROWS * columns // samples)

    def every_of(self, samples: int, positions: int, columns: int) -> int:
        """Return of how many samples one is enough for a layer with so many output positions a sample and columns a group."""
        if self.positions is not None:
            return 1
        least = max(ENOUGH_SAMPLES, max(ENOUGH_POSITIONS, ENOUGH_ROWS * columns) // max(positions, 1))
        return max(1, samples // least)

    @property
    def cores(self) -> int:
        """How many threads there are in all."""
        return cores_of(self.threads)

    def open(self, model: Model | bytes, side: int, folder: Path | None = None) -> Session:
        """Return a session for `model`, which runs on so many chunks side by side."""
        return self.session(model, threads_each(self.threads, side), folder, self.placement.calibrated)

    @property
    def deciding(self) -> "Running":
        """How models are run whose outputs decide: not on providers that round otherwise than the processor."""
        return replace(self, placement=self.placement.deciding)
