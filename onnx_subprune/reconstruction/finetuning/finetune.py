"""The loop: batches of the calibration inputs, gradients of what the outputs lose, and the best state on samples that no step has seen."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np
from onnx import ModelProto

from onnx_subprune._typing import Array, Float32, Float64, Int64
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.graph.gradients.tape import NoGradientError
from onnx_subprune.graph.gradients.training import Objective, training
from onnx_subprune.reconstruction.finetuning.adam import Adam, falling
from onnx_subprune.reconstruction.finetuning.goals import classified, goals_of, steady_outputs
from onnx_subprune.reconstruction.finetuning.settings import FineTune, FineTuned
from onnx_subprune.reconstruction.finetuning.teacher import STILL, TINY, Teacher
from onnx_subprune.runtime.progress import Watch
from onnx_subprune.runtime.session import Runnable, Session

PHASES = ((3e-4, 0.7), (1e-4, 1.0))
"""Largest step sizes, and the shares of the time at which they have fallen to nothing; each begins at the best state so far. 1e-3 destroys a refitted model."""
LOOKS = 20
"""How often the state is looked at."""
HARD = 0.1
"""What the cross entropy of labels counts for beside what the original says, where there are some."""
STAGE = "fine-tuning"
SURE = 1.0
"""A state is better than the first one where its gain is so many times the standard error of gains over the samples that choose."""
KEPT = 3
"""So many times the activations of a batch are alive in a step: themselves, their gradients, and what is computed on the way."""
MEMORY = 4 << 30
"""Bytes to aim at where nothing is said."""
SCALED = 8
"""Batches that tell how much an output varies."""


@dataclass(frozen=True, slots=True, eq=False)
class Tuning:
    """A pruned model and the original, the samples to fit to and those to choose the state by, and the inputs that are images, which may be moved.

    memory: bytes to aim at: batches are smaller where their activations would take more. labels: the classes, int64, of the samples to fit to, and of those
    that choose; None for none.
    """

    pruned: Runnable
    original: Runnable
    fitted: Calibration
    chosen: Calibration
    images: tuple[str, ...] = ()
    threads: int | None = None
    memory: int = MEMORY
    labels: tuple[Int64, Int64] | None = None


def finetuned(tuning: Tuning, settings: FineTune, watch: Watch) -> tuple[FineTuned, dict[str, Float32]]:
    """Return what fine-tuning did, and the new weights by initializer; none where the old ones are as good on the samples that choose.

    Raises NoGradientError where an operator of the pruned model is in the way.
    """
    return _Loop(tuning, settings, watch).run()


def by_sample(value: Float32, batch: int) -> Float32:
    """Return an output of a batch with a row a sample; one row where it is not of samples, as a sum over all of them, or a constant."""
    return value.reshape(1 if value.size % batch else batch, -1)


def surely(gains: Float64) -> bool:
    """True if gains of samples are above zero on the mean by more than that would differ on other samples; of one there is nothing to tell by."""
    return float(gains.mean()) > SURE * float(gains.std()) / sqrt(max(len(gains) - 1, 1))


class _Loop:
    """One run of fine-tuning."""

    def __init__(self, tuning: Tuning, settings: FineTune, watch: Watch) -> None:
        self.settings, self.watch, self.tuning = settings, watch, tuning
        fitted, chosen = tuning.fitted, tuning.chosen
        self.batch = 1 if fitted.runs else fitted.fixed or min(settings.batch, fitted.samples)
        self.rng = np.random.default_rng(settings.seed)
        session = tuning.original.session(threads=tuning.threads)
        model = tuning.pruned.model
        assert isinstance(model, ModelProto), "it was cut just now"
        steady = steady_outputs(session, fitted, self.batch)
        self.goals = goals_of(model, steady)
        classes: tuple[Float32 | None, Float32 | None] = (None, None)
        if tuning.labels is not None and (goal := classified(model, steady, tuning.labels)) is not None:
            self.goals.append(goal)
            count = steady[goal.output].shape[1]
            ones = np.eye(count, dtype=np.float32)
            classes = ones[tuning.labels[0]], ones[tuning.labels[1]]
        self.teacher = Teacher(session, fitted, self.goals, tuning.images, self.batch, classes[0])
        self.teacher.mirror(np.arange(self.batch, dtype=np.int64))
        self.judge = Teacher(session, chosen, self.goals, (), self.batch, classes[1])
        self._queue: list[int] = []
        self.objectives = self._objectives()
        while True:
            first = np.arange(self.batch, dtype=np.int64) % fitted.samples
            feeds = self.teacher.feeds(first), self.teacher.feeds((first + fitted.samples // 2) % fitted.samples)
            self.training = training(model, tuning.pruned.folder, feeds, self.objectives)
            if self.batch == 1 or fitted.fixed is not None or KEPT * self.training.activations <= tuning.memory:
                break
            self.batch //= 2
        self.student = Runnable(self.training.model).session(threads=tuning.threads)
        self.judged = Runnable(self.training.judge).session(threads=tuning.threads)
        self.adam = Adam(self.training.weights)
        self.passes, self.taken = [0, 0], 0
        self.total = settings.total

    def _objectives(self) -> list[Objective]:
        """Squared errors in units of what the outputs vary by, over some batches."""
        batches = [self._places() for _ in range(SCALED)]
        seen = [self.teacher.targets(places, STILL, self.teacher.feeds(places)) for places in batches]
        found = []
        asked = [goal for goal in self.goals if not goal.labels]
        for number, goal in enumerate(asked):
            values = np.concatenate([by_sample(item[number], self.batch) for item in seen])
            spread = float(np.sum(values.var(axis=0, dtype=np.float64))) if len(values) > 1 else 0.0
            weight = 1.0 / (spread or float(np.mean(np.sum(values.astype(np.float64) ** 2, axis=1))) or 1.0)
            found.append(Objective(goal.tensor, (1.0 if goal.heat else weight) / len(asked), goal.heat))
        return [*found, *(Objective(goal.tensor, HARD, goal.heat) for goal in self.goals if goal.labels)]

    def run(self) -> tuple[FineTuned, dict[str, Float32]]:
        """Go through the phases; the best state of all is kept."""
        self._start = time.perf_counter()
        first = self.loss()
        before = least = float(first.mean())
        if not isfinite(before):
            raise NoGradientError("the outputs hold other than finite numbers")
        best, place, found, done, begun = self.adam.flat.copy(), 0, 0.0, 0, 0.0
        for rate, end in PHASES:
            self.adam.restart(best)
            looks = max(1, round(LOOKS * (end - begun)))
            for look in range(1, looks + 1):
                now = self._until(done, begun + (end - begun) * look / looks, rate, (begun, end))
                if now == done:
                    continue
                if not self.taken:
                    raise NoGradientError("the gradients are no finite numbers, as those of a root of zero")
                done, losses = now, self.loss()
                loss = float(losses.mean())
                if loss < least and surely(first - losses):
                    best, least, place, found = self.adam.flat.copy(), loss, done, rate
            begun = end
        self.adam.restart(best)
        self.watch(STAGE, self.total, self.total)
        report = FineTuned(
            loss=(before, least),
            kept=place > 0,
            rate=found,
            steps=done,
            best=place,
            batch=self.batch,
            samples=(self.tuning.fitted.samples, self.tuning.chosen.samples),
            forward_passes=self.passes[0] + self.teacher.passes + self.judge.passes,
            backward_passes=self.passes[1],
            seconds=time.perf_counter() - self._start,
            moved=bool(self.tuning.images),
            mirrored=any(mirrored for *_, mirrored in self.teacher.moves),
            labels=any(goal.labels for goal in self.goals),
            left=self.training.left,
            because=self.training.because,
        )
        return report, {name: value.copy() for name, value in self.adam.weights.items()} if report.kept else {}

    def _until(self, done: int, share: float, rate: float, phase: tuple[float, float]) -> int:
        """Make steps until this share of the time is over; phase: the shares between which the step size falls to nothing."""
        begun, end = phase
        while (now := self.settings.share(done, time.perf_counter() - self._start)) < share:
            self._step(falling(rate, (now - begun) / (end - begun)))
            done += 1
            self.watch(STAGE, int(self.total * min(now, 1.0)), self.total)
        return done

    def _step(self, rate: float) -> None:
        places = self._places()
        move = self.teacher.moves[int(self.rng.integers(len(self.teacher.moves)))]
        feeds = self.teacher.feeds(places, move)
        found = self.student.run(self._fed(self.student, feeds, self.teacher.targets(places, move, feeds)))
        self.passes[0] += 1
        self.passes[1] += 1
        self.taken += self.adam.step({name: found[output] for name, output in self.training.gradients.items()}, rate)

    def loss(self) -> Float64:
        """Return the loss of each sample that chooses, or of each batch, without what no model can go below."""
        found, samples = [], self.tuning.chosen.samples
        names = [port.name for port in self.judged.outputs][-1:]
        for start in range(0, samples, self.batch):
            places = np.sort((start + np.arange(self.batch, dtype=np.int64)) % samples)
            feeds = self.judge.feeds(places)
            targets = self.judge.targets(places, STILL, feeds)
            lost = self.judged.run(self._fed(self.judged, feeds, targets), names)[names[0]].astype(np.float64)
            least = sum(map(self._least, self.objectives, targets))
            found.append(lost.reshape(-1) * lost.size - least)
            self.passes[0] += 1
        return np.concatenate(found)

    def _least(self, goal: Objective, target: Float32) -> float:
        """The loss of a model that does what the original does."""
        if goal.softmax is None:
            return 0.0
        logs = np.log(np.maximum(target, TINY)) * target
        return -goal.weight * goal.softmax**2 * float(logs.sum(dtype=np.float64)) / self.batch

    def _fed(self, session: Session, feeds: Mapping[str, Array], targets: Sequence[Float32]) -> dict[str, Array]:
        """What a run reads: inputs, targets and weights."""
        every: dict[str, Array] = {
            **feeds,
            **dict(zip(self.training.targets, targets, strict=True)),
            **self.adam.weights,
        }
        return {port.name: every[port.name] for port in session.inputs}

    def _places(self) -> Int64:
        """The samples of the next batch: all samples once before one comes again, as far as batches are full."""
        if len(self._queue) < self.batch:
            self._queue = [*self._queue, *self.rng.permutation(self.tuning.fitted.samples).tolist()]
        found, self._queue = self._queue[: self.batch], self._queue[self.batch :]
        return np.array(found, np.int64)
