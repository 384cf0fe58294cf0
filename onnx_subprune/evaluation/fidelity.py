"""How faithful a pruned model is to the original on data, output by output."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from onnx_subprune._typing import Array, Float64
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.evaluation.parts import Parts, apart
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


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFidelity:
    """How close an output y' of the pruned model is to y of the original.

    relative_error: ||y' - y||_F / ||y||_F. cosine: of y and y'. standardized_error: ||y' - y||_F over what the best constant makes, the mean of y over
    the samples: at 1 the output is no better than one; None where y does not vary. correlation: of y and y' about their means over the samples.
    agreement: share of samples with equal arg-max, None where the rank is not 2; chance: what it would be if y and y' were independent.
    Of integers, truth values and strings there are only agreement, the share of equal elements, and chance. There is nothing of an output whose shape depends
    on values, where the models make different ones.
    """

    relative_error: float | None
    cosine: float | None
    agreement: float | None
    chance: float | None = None
    standardized_error: float | None = None
    correlation: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """Of all outputs; accuracy of both models where labels were given.

    held_out: True if the pruned model was not fitted to the samples, nor chosen by them; None where that is not known.
    """

    samples: int
    outputs: Mapping[str, OutputFidelity]
    accuracy: tuple[float, float] | None = None
    held_out: bool | None = None

    @property
    def where(self) -> str:
        """The samples, in words."""
        if self.held_out is None:
            return f"{self.samples} samples"
        return f"{self.samples} held-out samples" if self.held_out else f"{self.samples} fitted samples"


NOTHING = OutputFidelity(relative_error=None, cosine=None, agreement=None)


class _Equal:
    """Equal choices of two models, and how often each choice was made."""

    def __init__(self) -> None:
        self.equal = self.rows = 0
        self.counts: tuple[Counter[int], Counter[int]] = (Counter(), Counter())

    def add(self, original: Array, pruned: Array) -> None:
        self.equal += int(np.sum(original == pruned))
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


class _Integers(_Equal):
    """Of an output of integers, truth values or strings."""

    def __init__(self) -> None:
        super().__init__()
        self.comparable = True

    def add(self, original: Array, pruned: Array) -> None:
        self.comparable = self.comparable and original.shape == pruned.shape
        if self.comparable:
            super().add(original, pruned)

    def result(self) -> OutputFidelity:
        if not self.comparable:
            return NOTHING
        return OutputFidelity(relative_error=None, cosine=None, agreement=self.agreement, chance=self.chance)


class _Floats:
    """Of a floating-point output. Sums about the mean of the first chunk, so that little cancels."""

    def __init__(self) -> None:
        self.lost = self.energy = self.pruned = self.product = 0.0
        self.ranked, self.choices, self.comparable = True, _Equal(), True
        self.samples, self.least = 0, VARIES
        self.start: Float64 | None = None
        self.sums: tuple[Float64, Float64] | None = None
        self.squares = np.zeros(3)

    def add(self, original: Array, pruned: Array) -> None:
        self.comparable = self.comparable and original.shape == pruned.shape
        if not self.comparable:
            return
        self.least = VARIES if original.dtype.itemsize > 2 else HALF_VARIES
        a, b = original.astype(np.float64), pruned.astype(np.float64)
        self.lost += float(np.sum((a - b) ** 2))
        self.energy += float(np.sum(a * a))
        self.pruned += float(np.sum(b * b))
        self.product += float(np.sum(a * b))
        self.ranked = self.ranked and a.ndim == 2 and a.shape[1] > 1
        if self.ranked:
            self.choices.add(a.argmax(axis=1), b.argmax(axis=1))
        self._add_centered(a, b)

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
        norm = float(np.sqrt(self.energy * self.pruned))
        spread, correlation = self._spread()
        varies = spread is not None and spread > self.least**2 * self.energy
        return OutputFidelity(
            relative_error=float(np.sqrt(self.lost / self.energy)) if self.energy > 0 else float(self.lost > 0),
            cosine=self.product / norm if norm > 0 else float(self.lost == 0),
            agreement=self.choices.agreement if self.ranked else None,
            chance=self.choices.chance if self.ranked else None,
            standardized_error=float(np.sqrt(self.lost / spread)) if varies and spread is not None else None,
            correlation=correlation if varies else None,
        )

    def _spread(self) -> tuple[float | None, float | None]:
        """The squared distance of the output from its mean, and the correlation; None where samples are too few."""
        if self.samples < SAMPLES or self.sums is None:
            return None, None
        first, second = self.sums
        ours, theirs, both = self.squares - np.array(
            [np.sum(x * y) / self.samples for x, y in ((first, first), (second, second), (first, second))]
        )
        scale = np.sqrt(max(ours, 0.0) * max(theirs, 0.0))
        return float(ours), float(both / scale) if scale > 0 else 0.0


def fidelity(
    original: Runnable,
    pruned: Runnable,
    data: Calibration,
    labels: NDArray[np.int64] | None = None,
    threads: int | None = None,
    places: Mapping[str, Seams] = MappingProxyType({}),
) -> Fidelity:
    """Run both models over `data` and compare; `labels` (samples,) are for the first output, a vector of scores.

    places: where outputs may be cut, see `parts`; parts of different kinds are compared beside the whole.
    """
    each = threads_each(threads, data.chunk_count)
    first, second = original.session(threads=each), pruned.session(threads=each)
    names = [port.name for port in first.outputs if port.dtype.kind in COUNTED]
    sums: dict[str, _Floats | _Integers] = {}
    parts: Parts | None = None
    scores = [port.name for port in first.outputs if port.dtype.kind == "f"]
    right, start = [0, 0], 0

    def run(chunk: Mapping[str, Array]) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
        return first.run(chunk, names), second.run(chunk, names)

    for ours, theirs in alongside(run, ((chunk,) for chunk in data.chunks()), cores_of(threads)):
        parts = apart(places, [ours]) if parts is None else parts
        others = parts.of(theirs, whole=True)
        for name, value in parts.of(ours, whole=True).items():
            if name in others:
                sums.setdefault(name, _Floats() if value.dtype.kind == "f" else _Integers()).add(value, others[name])
        if labels is not None and scores:
            part = labels[start : start + len(ours[scores[0]])]
            right[0] += int(np.sum(ours[scores[0]].argmax(axis=1) == part))
            right[1] += int(np.sum(theirs[scores[0]].argmax(axis=1) == part))
            start += len(part)
    accuracy = (right[0] / start, right[1] / start) if start else None
    return Fidelity(
        samples=data.samples, outputs={name: item.result() for name, item in sums.items()}, accuracy=accuracy
    )
