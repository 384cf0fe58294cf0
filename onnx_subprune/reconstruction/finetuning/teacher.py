"""Batches of samples with what the original makes of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_subprune._typing import Array, Float32, Int64
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.shifts import MOVES, moved
from onnx_subprune.runtime.session import Session

HELD = 256 << 20
"""Bytes of targets that are kept; where they are more, the original runs at every step."""
STILL = (0, 0)
TINY = 1e-30


@dataclass(frozen=True, slots=True)
class Goal:
    """An output of both models; tensor: what is held against it in the pruned one, before its softmax where `heat`, a temperature, is given."""

    output: str
    tensor: str
    heat: float | None = None

    def target(self, output: Array) -> Float32:
        """Return what the tensor is held against: the output itself, or its classes at the temperature."""
        value = np.asarray(output, np.float32)
        if self.heat is None:
            return value
        heated = np.log(np.maximum(value, TINY)) / self.heat
        powers = np.exp(heated - heated.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)


class Teacher:
    """The original, which is asked for each batch, or once for all where the answers have room.

    data: samples; images: the inputs that may be moved by a pixel. passes: batches that it has run.
    """

    def __init__(
        self, session: Session, data: Calibration, goals: Sequence[Goal], images: Sequence[str], batch: int
    ) -> None:
        self.session, self.data, self.goals, self.images, self.batch = session, data, goals, images, batch
        self.moves = (STILL, *MOVES) if images else (STILL,)
        self.passes = 0
        self._kept: dict[tuple[int, int], list[Float32]] = {}
        self._keeps: bool | None = None

    def feeds(self, places: Int64, move: tuple[int, int] = STILL) -> dict[str, Array]:
        """Return what a run on the samples at `places` is fed."""
        data = self.data
        if data.runs:
            return {name: data.fed(name, int(places[0])) for name in (*data.arrays, *data.shared)}
        part = {name: np.ascontiguousarray(data.at(np.sort(places)).all_of(name)) for name in data.arrays}
        if move != STILL:
            part |= {name: np.ascontiguousarray(moved(part[name], *move)) for name in self.images}
        return part | dict(data.shared)

    def targets(self, places: Int64, move: tuple[int, int], feeds: Mapping[str, Array]) -> list[Float32]:
        """Return the targets for such a run, one for each goal."""
        if self._keeps is None:
            one = self._run(feeds)
            each = sum(item.nbytes for item in one) / len(places)
            self._keeps = (
                not self.data.runs
                and each * self.data.samples * len(self.moves) <= HELD
                and all(item.shape[:1] == (len(places),) for item in one)
            )
        if not self._keeps:
            return self._run(feeds)
        if move not in self._kept:
            every = np.arange(self.data.samples, dtype=np.int64)
            parts = []
            for start in range(0, len(every), self.batch):
                some = every[start : start + self.batch]
                if self.data.fixed is not None:
                    some = np.resize(some, self.data.fixed)
                parts.append([item[: len(every) - start] for item in self._run(self.feeds(some, move))])
            self._kept[move] = [np.concatenate(item) for item in zip(*parts, strict=True)]
        return [item[np.sort(places)] for item in self._kept[move]]

    def _run(self, feeds: Mapping[str, Array]) -> list[Float32]:
        self.passes += 1
        found = self.session.run(feeds, list(dict.fromkeys(goal.output for goal in self.goals)))
        return [goal.target(found[goal.output]) for goal in self.goals]
