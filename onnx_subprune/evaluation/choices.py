"""What an output chooses: a class, labels, or nothing that could be told from its numbers; and how often two models choose the same."""

from collections import Counter

import numpy as np

from onnx_subprune._typing import Array, Float64
from onnx_subprune.evaluation.measures import OFTEN
from onnx_subprune.evaluation.spread import agreement_spread, by_sample

VALUES = 4096
"""Most different integers that are counted."""
UNIT = 1e-3
"""Rows whose length is 1 up to this, all of an output's, are directions; those that sum up to 1, too, are probabilities."""

MATRIX = 2
"""Axes of scores, a row a sample."""
PAIR, ENOUGH = 2, 20
"""Kinds of a decision, and so many of the rarer one tell whether it is made at all."""
LONG, LEAD = 32, 0.5
"""In scores of so many classes the largest is far in front of the next, in standard deviations (2 for photographs); of any numbers it is 0.2 to 0.35."""
EVEN, SURE = 0.5, 0.2
"""A probability is a decision at this threshold; of decisions half of the numbers are so far from it at least, of coordinates on a picture they are not."""


class Equal:
    """Equal choices of two models, and how often each choice was made."""

    def __init__(self) -> None:
        self.equal = self.rows = 0
        self.shares = list[Float64]()
        self.counts: tuple[Counter[int], Counter[int]] = (Counter(), Counter())

    def add(self, original: Array, pruned: Array, samples: int) -> None:
        """Add the choices that both make for so many samples."""
        same = original == pruned
        self.equal += int(np.sum(same))
        if same.size:
            self.shares.append(by_sample(same, samples).mean(axis=1))
        self.rows += original.size
        for counter, values in zip(self.counts, (original, pruned), strict=True):
            if len(counter) <= VALUES:
                counter.update(
                    dict(zip(*(part.tolist() for part in np.unique(values, return_counts=True)), strict=True))
                )

    @property
    def agreement(self) -> float | None:
        """The share of equal choices; None where there are none."""
        return self.equal / self.rows if self.rows else None

    @property
    def chance(self) -> float | None:
        """What it would be if the models chose independently, each as often; None where that is not known."""
        ours, theirs = self.counts
        if not self.rows or max(len(ours), len(theirs)) > VALUES:
            return None
        return sum(count * theirs[value] for value, count in ours.items()) / self.rows**2

    @property
    def decides(self) -> bool:
        """True if not all choices of both models are the same one."""
        return self.chance is not None and self.chance < 1.0

    @property
    def recalled(self) -> float | None:
        """The share of the original's rarer choices, of two, that the other model makes as well; None where they are fewer than `ENOUGH`, or of more kinds."""
        ours, theirs = self.counts
        if not {*ours, *theirs} <= {0, 1} or len(ours) < PAIR:
            return None
        rarer = min(ours, key=lambda choice: ours[choice])
        both = (self.equal - self.rows + ours[rarer] + theirs[rarer]) / 2
        return both / ours[rarer] if ours[rarer] >= ENOUGH else None

    @property
    def spread(self) -> float | None:
        """How much it differs on other samples, as many."""
        return agreement_spread(np.concatenate(self.shares), self.rows) if self.shares else None


class Choices:
    """Those of an output of floating-point numbers. signs: those of single numbers.

    last: its last axis alone has one size whatever the model is fed, as classes have behind positions, of which there are any number.
    """

    def __init__(self, *, last: bool = False) -> None:
        self.signs, self._last = Equal(), last
        self._distances = list[float]()
        self._largest, self._labels = Equal(), Equal()
        self._ranked = self._one_number = self._labelled = self._units = self._shares = True
        self._each, self._classes = 0, (1, 0)
        self._leads = list[Float64]()

    def add(self, a: Float64, b: Float64, samples: int) -> None:
        """Add what both models put out for so many samples."""
        self._each = a.size // max(samples, 1)
        self._one_number = self._one_number and _single(a)
        if self._one_number:
            self.signs.add(a > 0.0, b > 0.0, samples)
        self._labelled = self._labelled and _decides(a)
        if self._labelled:
            self._labels.add(a > EVEN, b > EVEN, samples)
            self._distances.append(float(np.median(np.abs(a - EVEN))))
        axis = _classes(a, last=self._last)
        classes = (0, 0) if axis is None else (axis, a.shape[axis])
        alike = not self._largest.rows or classes == self._classes
        self._ranked = self._ranked and axis is not None and alike
        if not self._ranked or axis is None:
            return
        self._classes = classes
        if a.ndim == MATRIX or self._last:
            self._leads.append(_leads(a.reshape(-1, a.shape[-1])))
        self._largest.add(a.argmax(axis=axis), b.argmax(axis=axis), samples)
        self._units = self._units and bool((np.abs(np.linalg.norm(a, axis=axis) - 1.0) <= UNIT).all())
        self._shares = self._shares and bool((np.abs(a.sum(axis=axis) - 1.0) <= UNIT).all())

    def told(self) -> Equal | None:
        """Return the choices that the numbers tell: of classes, of labels that are true or not, or signs; None where they tell none."""
        if self._ranked and self._units and not self._shares:
            return None  # an embedding
        if self._labelled and not (self._ranked and self._shares) and self._labels.decides:
            return self._labels if np.median(self._distances) >= SURE else None
        if self._ranked and (self._shares or not self._leads or np.median(np.concatenate(self._leads)) >= LEAD):
            return self._largest
        return self.signs if self._of_signs() else None

    def _of_signs(self) -> bool:
        """True if signs are decisions: of a number a sample, or of many of which nearly all have the same. Those of a waveform are none."""
        return self._one_number and self.signs.decides and (self._each == 1 or (self.signs.chance or 0.0) > OFTEN)


def _classes(output: Float64, *, last: bool = False) -> int | None:
    """The axis along which an output has a score for each class; of one axis, or more than two, one of probabilities, the last or that of channels.

    last: of three axes the last one may have scores that are no probabilities, if they are many: of a few nothing tells them from coordinates.
    """
    if output.ndim in (0, 2) or not output.size:
        return 1 if output.ndim == 2 and output.shape[1] > 1 else None
    for axis in sorted({output.ndim - 1, min(1, output.ndim - 1)}, reverse=True) if output.min() >= 0.0 else ():
        if output.shape[axis] > 1 and bool((np.abs(output.sum(axis=axis) - 1.0) <= UNIT).all()):
            return axis
    return 2 if last and output.ndim == MATRIX + 1 and output.shape[2] >= LONG else None


def _leads(output: Float64) -> Float64:
    """How far the largest number of each row is in front of the next one, in standard deviations of the row; infinite, where rows are too short to tell."""
    count = output.shape[1]
    if count < LONG:
        return np.full(1, np.inf)
    best = np.partition(output, (count - PAIR, count - 1), axis=1)[:, -PAIR:]
    lead: Float64 = best[:, 1] - best[:, 0]
    return np.asarray(np.divide(lead, output.std(axis=1), out=np.full_like(lead, np.inf), where=lead > 0.0))


def _decides(output: Float64) -> bool:
    """True if all numbers are probabilities, as behind a sigmoid, each of a decision."""
    return bool(output.size) and float(output.min()) >= -UNIT and float(output.max()) <= 1.0 + UNIT  # runtimes round


def _single(output: Float64) -> bool:
    """True if there is one number a sample, or a position."""
    return output.ndim > 0 and output.size > 0 and (output.ndim == 1 or 1 in (output.shape[-1], output.shape[1]))
