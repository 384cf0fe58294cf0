"""Batches of samples with what the original makes of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_subprune._typing import Array, Float32, Int64
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.shifts import MIRRORED, MOVES, Move, alike, moved
from onnx_subprune.runtime.session import Session

HELD = 256 << 20
"""Bytes of targets that are kept; where they are more, the original runs at every step."""
STILL: Move = (0, 0, False)
TINY = 1e-30


@dataclass(frozen=True, slots=True)
class Goal:
    """An output of both models; tensor: what is held against it in the pruned one, before its softmax where `heat`, a temperature, is given.

    labels: the classes of the samples take the place of what the original says of them.
    """

    output: str
    tensor: str
    heat: float | None = None
    labels: bool = False

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

    data: samples; images: the inputs that may be moved by a pixel. classes: (samples, classes) float32, ones at the labels, for goals that ask for them,
    which come last. passes: batches that it has run.
    """

    def __init__(
        self,
        session: Session,
        data: Calibration,
        goals: Sequence[Goal],
        images: Sequence[str],
        batch: int,
        classes: Float32 | None = None,
    ) -> None:
        self.session, self.data, self.images, self.batch, self.classes = session, data, images, batch, classes
        self.goals = [goal for goal in goals if not goal.labels]
        self.moves: tuple[Move, ...] = (STILL, *MOVES) if images else (STILL,)
        self.passes = 0
        self._kept: dict[Move, list[Float32]] = {}
        self._keeps: bool | None = None

    def mirror(self, places: Int64) -> None:
        """Go on with mirrored images beside the others, where the original says of those at `places` that they are alike."""
        if not self.images or not self.goals:
            return
        seen, mirrored = (self._run(self.feeds(places, move)) for move in (STILL, MIRRORED))
        if alike(seen, mirrored):
            self.moves = (*self.moves, *((down, right, True) for down, right, _ in self.moves))

    def feeds(self, places: Int64, move: Move = STILL) -> dict[str, Array]:
        """Return what a run on the samples at `places` is fed."""
        data = self.data
        if data.runs:
            return {name: data.fed(name, int(places[0])) for name in (*data.arrays, *data.shared)}
        part = {name: np.ascontiguousarray(data.at(np.sort(places)).all_of(name)) for name in data.arrays}
        if move != STILL:
            part |= {name: np.ascontiguousarray(moved(part[name], *move)) for name in self.images}
        return part | dict(data.shared)

    def targets(self, places: Int64, move: Move, feeds: Mapping[str, Array]) -> list[Float32]:
        """Return the targets for such a run, one for each goal."""
        found = self._said(places, move, feeds)
        return found if self.classes is None else [*found, self.classes[np.sort(places)]]

    def _said(self, places: Int64, move: Move, feeds: Mapping[str, Array]) -> list[Float32]:
        """What the original says."""
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
