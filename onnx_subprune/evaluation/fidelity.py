"""How faithful a pruned model is to the original on data, output by output."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from onnx_subprune._typing import Array, Float64
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.errors import DataError
from onnx_subprune.evaluation.measures import NOTHING, OFTEN, Fidelity, OutputFidelity
from onnx_subprune.evaluation.parts import Parts, apart
from onnx_subprune.evaluation.spread import agreement_spread, by_sample, error_spread
from onnx_subprune.graph.outputs import Seams
from onnx_subprune.runtime.session import Runnable
from onnx_subprune.runtime.threads import alongside, cores_of, threads_each

COUNTED = "fiubO"
"""Kinds of the element types that are compared; objects are strings, or what is no tensor."""
SAMPLES = 4
"""So few samples tell how much an output varies."""
VARIES, HALF_VARIES = 1e-4, 2e-3
"""An output varies, if its standard deviation over the samples is more than this share of its norm (the second of 16 bits); less may be rounding."""
COORDINATES = 1 << 22
"""Of outputs with more elements a sample than this one mean is taken, not one each."""
VALUES = 4096
"""Most different integers that are counted."""
UNIT = 1e-3
"""Rows whose length is 1 up to this, all of an output's, are directions; those that sum up to 1, too, are probabilities."""

MATRIX = 2
"""Axes of an output that has scores of classes, or labels, for each sample."""
EACH, EVEN = -1, 0.5
"""In place of an axis of classes: every number is a probability of its own, and a decision at this threshold."""


class _Equal:
    """Equal choices of two models, and how often each choice was made."""

    def __init__(self) -> None:
        self.equal = self.rows = 0
        self.shares = list[Float64]()
        self.counts: tuple[Counter[int], Counter[int]] = (Counter(), Counter())

    def add(self, original: Array, pruned: Array, samples: int) -> None:
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
        return self.equal / self.rows if self.rows else None

    @property
    def chance(self) -> float | None:
        ours, theirs = self.counts
        if not self.rows or max(len(ours), len(theirs)) > VALUES:
            return None
        return sum(count * theirs[value] for value, count in ours.items()) / self.rows**2

    @property
    def spread(self) -> float | None:
        return agreement_spread(np.concatenate(self.shares), self.rows) if self.shares else None


class _Integers(_Equal):
    """Of an output of integers, truth values or strings."""

    def __init__(self) -> None:
        super().__init__()
        self.comparable = True

    def add(self, original: Array, pruned: Array, samples: int) -> None:
        self.comparable = self.comparable and original.shape == pruned.shape
        if self.comparable:
            super().add(original, pruned, samples)

    def result(self) -> OutputFidelity:
        if not self.comparable:
            return NOTHING
        return replace(NOTHING, agreement=self.agreement, chance=self.chance, agreement_spread=self.spread)


class _Floats:
    """Of a floating-point output. Sums about the mean of the first chunk, so that little cancels."""

    def __init__(self) -> None:
        self.pruned = self.product = 0.0
        self.lost, self.energy = list[Float64](), list[Float64]()
        self.ranked, self.choices, self.comparable = True, _Equal(), True
        self.single, self.signs = True, _Equal()
        self.labels, self.each = True, _Equal()
        self.units = self.shares = True
        self.axis, self.samples, self.least = 1, 0, VARIES
        self.start: Float64 | None = None
        self.sums: tuple[Float64, Float64] | None = None
        self.squares = np.zeros(3)

    def add(self, original: Array, pruned: Array, samples: int) -> None:
        self.comparable = self.comparable and original.shape == pruned.shape
        if not self.comparable:
            return
        self.least = VARIES if original.dtype.itemsize > 2 else HALF_VARIES
        a, b = original.astype(np.float64), pruned.astype(np.float64)
        self.lost.append(np.sum(by_sample((a - b) ** 2, samples), axis=1))
        self.energy.append(np.sum(by_sample(a * a, samples), axis=1))
        self.pruned += float(np.sum(b * b))
        self.product += float(np.sum(a * b))
        self._add_choices(a, b, samples)
        self._add_centered(a, b)

    def _add_choices(self, a: Float64, b: Float64, samples: int) -> None:
        self.single = self.single and _single(a)
        if self.single:
            self.signs.add(a > 0.0, b > 0.0, samples)
        self.labels = self.labels and a.ndim == MATRIX and _decides(a)
        if self.labels:
            self.each.add(a > EVEN, b > EVEN, samples)
        axis = _classes(a)
        if axis is None and _decides(a):
            axis = EACH
        self.ranked = self.ranked and axis is not None and (not self.choices.rows or axis == self.axis)
        if not self.ranked or axis is None:
            return
        self.axis = axis
        if axis == EACH:
            self.units = False
            self.choices.add(a > EVEN, b > EVEN, samples)
            return
        self.choices.add(a.argmax(axis=axis), b.argmax(axis=axis), samples)
        self.units = self.units and bool((np.abs(np.linalg.norm(a, axis=axis) - 1.0) <= UNIT).all())
        self.shares = self.shares and bool((np.abs(a.sum(axis=axis) - 1.0) <= UNIT).all())

    def _add_centered(self, a: Float64, b: Float64) -> None:
        if not a.size:
            return
        if self.start is None:
            each = a.ndim > 0 and a.size // len(a) <= COORDINATES
            self.start = a.mean(axis=0) if each else np.asarray(a.mean())
            self.sums = np.zeros_like(self.start), np.zeros_like(self.start)
        assert self.sums is not None, "made together"
        if self.start.ndim and self.start.shape != a.shape[1:]:
            self.samples = -1  # not one size a sample: no means
        if self.samples < 0:
            return
        a, b = a - self.start, b - self.start
        self.squares += (np.sum(a * a), np.sum(b * b), np.sum(a * b))
        axis = 0 if a.ndim > self.start.ndim and self.start.ndim == a.ndim - 1 else None
        self.sums = self.sums[0] + a.sum(axis=axis), self.sums[1] + b.sum(axis=axis)
        self.samples += len(a) if axis == 0 else a.size

    def result(self) -> OutputFidelity:
        if not self.comparable:
            return NOTHING
        each, energies = np.concatenate(self.lost), np.concatenate(self.energy)
        lost, energy = float(each.sum()), float(energies.sum())
        norm = float(np.sqrt(energy * self.pruned))
        about_mean, correlation = self._about_mean()
        choices = self.choices if self.ranked and (self.shares or not self.units) else None  # embeddings have none
        if choices is not None and self.axis == EACH and choices.chance == 1.0:
            choices = None  # nothing was decided
        if choices is not None and self.labels and not self.shares and (self.each.chance or 1.0) < 1.0:
            choices = self.each  # several labels, or none, may be true
        signs = choices is None and self._of_signs()
        choices = self.signs if signs else choices
        varies = about_mean is not None and about_mean > self.least**2 * energy
        return OutputFidelity(
            relative_error=float(np.sqrt(lost / energy)) if energy > 0 else float(lost > 0),
            cosine=self.product / norm if norm > 0 else float(lost == 0),
            agreement=None if choices is None else choices.agreement,
            chance=None if choices is None else choices.chance,
            standardized_error=float(np.sqrt(lost / about_mean)) if varies and about_mean is not None else None,
            correlation=correlation if varies else None,
            relative_error_spread=error_spread(each, energies),
            agreement_spread=None if choices is None else choices.spread,
            signs=signs,
        )

    def _of_signs(self) -> bool:
        """True if signs are decisions: of a number a sample, or of many of which nearly all have the same. Those of a waveform are none."""
        chance = self.signs.chance if self.single else None
        flat = self.start is not None and self.start.size == 1
        return chance is not None and chance < 1.0 and (flat or chance > OFTEN)

    def _about_mean(self) -> tuple[float | None, float | None]:
        """The squared distance of the output from its mean, and the correlation; None where samples are too few."""
        if self.samples < SAMPLES or self.sums is None:
            return None, None
        first, second = self.sums
        ours, theirs, both = self.squares - np.array(
            [np.sum(x * y) / self.samples for x, y in ((first, first), (second, second), (first, second))]
        )
        scale = np.sqrt(max(ours, 0.0) * max(theirs, 0.0))
        return float(ours), float(both / scale) if scale > 0 else 0.0


def _classes(output: Float64) -> int | None:
    """The axis along which an output has a score for each class; of one axis, or more than two, one of probabilities, the last or that of channels."""
    if output.ndim in (0, 2) or not output.size:
        return 1 if output.ndim == 2 and output.shape[1] > 1 else None
    for axis in sorted({output.ndim - 1, min(1, output.ndim - 1)}, reverse=True) if output.min() >= 0.0 else ():
        if output.shape[axis] > 1 and bool((np.abs(output.sum(axis=axis) - 1.0) <= UNIT).all()):
            return axis
    return None


def _decides(output: Float64) -> bool:
    """True if all numbers are probabilities, as behind a sigmoid, each of a decision."""
    return bool(output.size) and float(output.min()) >= 0.0 and float(output.max()) <= 1.0


def _single(output: Float64) -> bool:
    """True if there is one number a sample, or a position."""
    return output.ndim > 0 and output.size > 0 and (output.ndim == 1 or 1 in (output.shape[-1], output.shape[1]))


def fidelity(
    original: Runnable,
    pruned: Runnable,
    data: Calibration,
    labels: NDArray[np.int64] | None = None,
    threads: int | None = None,
    places: Mapping[str, Seams] = MappingProxyType({}),
    own: Calibration | None = None,
    left_out: Collection[str] = (),
) -> Fidelity:
    """Run both models over `data` and compare; `labels` (samples,) are for the first output, a vector of scores.

    places: where outputs may be cut, see `parts`; parts of different kinds are compared beside the whole. own: what the pruned model is fed in place of
    `data`, with its own states in a stream. left_out: outputs that are not compared.
    """
    each = threads_each(threads, data.chunk_count)
    first, second = original.session(threads=each), pruned.session(threads=each)
    names = [port.name for port in first.outputs if port.dtype.kind in COUNTED and port.name not in left_out]
    sums: dict[str, _Floats | _Integers] = {}
    parts: Parts | None = None
    scores = [port.name for port in first.outputs if port.dtype.kind == "f"]
    right, start = [0, 0], 0

    def run(chunk: Mapping[str, Array], its: Mapping[str, Array]) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
        return first.run(chunk, names), second.run(its, names)

    both = zip(data.chunks(), (own or data).chunks(), strict=True)
    for place, (ours, theirs) in enumerate(alongside(run, both, cores_of(threads))):
        samples = min(data.chunk, data.samples - place * data.chunk)
        parts = apart(places, [ours]) if parts is None else parts
        others = parts.of(theirs, whole=True)
        for name, value in parts.of(ours, whole=True).items():
            if name in others:
                kept = sums.setdefault(name, _Floats() if value.dtype.kind == "f" else _Integers())
                kept.add(value, others[name], samples)
        if labels is not None and scores:
            rows = len(ours[scores[0]])
            if rows < samples:
                raise DataError(
                    f"labels need a row of scores for every sample, but {scores[0]!r} has {rows} for {samples}"
                )
            part = labels[start : start + rows]
            right[0] += int(np.sum(ours[scores[0]].argmax(axis=1) == part))
            right[1] += int(np.sum(theirs[scores[0]].argmax(axis=1) == part))
            start += len(part)
    accuracy = (right[0] / start, right[1] / start) if start else None
    return Fidelity(
        samples=data.samples, outputs={name: item.result() for name, item in sums.items()}, accuracy=accuracy
    )
