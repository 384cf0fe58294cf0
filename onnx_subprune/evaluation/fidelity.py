"""How faithful a pruned model is to the original on data, output by output."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from onnx_subprune._typing import Array, Float64
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.errors import DataError
from onnx_subprune.evaluation.choices import Choices, Equal
from onnx_subprune.evaluation.divergence import where_finite
from onnx_subprune.evaluation.measures import NOTHING, Fidelity, OutputFidelity
from onnx_subprune.evaluation.parts import Parts, apart
from onnx_subprune.evaluation.spread import by_sample, error_spread
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


class _Integers(Equal):
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
        return replace(
            NOTHING,
            agreement=self.agreement,
            chance=self.chance,
            agreement_spread=self.spread,
            recalled=self.recalled,
        )


class _Floats:
    """Of a floating-point output. Sums about the mean of the first chunk, so that little cancels.

    ragged: samples have different sizes, and one mean. last: see `Choices`.
    """

    def __init__(self, *, ragged: bool = False, last: bool = False) -> None:
        self.ragged = ragged
        self.pruned = self.product = 0.0
        self.lost, self.energy = list[Float64](), list[Float64]()
        self.choices, self.comparable = Choices(last=last), True
        self.samples, self.least, self.broken = 0, VARIES, False
        self.start: Float64 | None = None
        self.sums: tuple[Float64, Float64] | None = None
        self.squares = np.zeros(3)

    def add(self, original: Array, pruned: Array, samples: int) -> None:
        self.comparable = self.comparable and original.shape == pruned.shape
        if not self.comparable:
            return
        self.least = VARIES if original.dtype.itemsize > 2 else HALF_VARIES
        a, b = where_finite(original.astype(np.float64), pruned.astype(np.float64))
        if not np.isfinite(b).all():  # what only the pruned model has no number for
            self.comparable, self.broken = False, True
            return
        self.lost.append(np.sum(by_sample((a - b) ** 2, samples), axis=1))
        self.energy.append(np.sum(by_sample(a * a, samples), axis=1))
        self.pruned += float(np.sum(b * b))
        self.product += float(np.sum(a * b))
        self.choices.add(a, b, samples)
        self._add_centered(a, b)

    def _add_centered(self, a: Float64, b: Float64) -> None:
        if not a.size:
            return
        if self.start is None:
            each = a.ndim > 0 and a.size // len(a) <= COORDINATES and not self.ragged
            self.start = a.mean(axis=0) if each else np.asarray(a.mean())
            self.sums = np.zeros_like(self.start), np.zeros_like(self.start)
        assert self.sums is not None, "made together"
        if self.start.ndim and self.start.shape != a.shape[1:]:
            self.samples = -1  # not one size a sample: no means
        if self.samples < 0:
            return
        a, b = a - self.start, b - self.start
        self.squares += (np.sum(a * a), np.sum(b * b), np.sum(a * b))
        axis = 0 if a.ndim > self.start.ndim and self.start.ndim == a.ndim - 1 and not self.ragged else None
        self.sums = self.sums[0] + a.sum(axis=axis), self.sums[1] + b.sum(axis=axis)
        self.samples += len(a) if axis == 0 else a.size

    def result(self) -> OutputFidelity:
        if not self.comparable:
            return replace(NOTHING, relative_error=np.inf) if self.broken else NOTHING
        each, energies = np.concatenate(self.lost), np.concatenate(self.energy)
        lost, energy = float(each.sum()), float(energies.sum())
        norm = float(np.sqrt(energy * self.pruned))
        about_mean, correlation = self._about_mean()
        choices = self.choices.told()
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
            signs=choices is self.choices.signs,
            recalled=None if choices is None else choices.recalled,
        )

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


def _ends_in_classes(shape: Sequence[int | str | None]) -> bool:
    """True if an output is declared as positions of any number, of which each has so many numbers."""
    return len(shape) == 3 and not isinstance(shape[1], int) and isinstance(shape[2], int)


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
    classed = {port.name for port in first.outputs if _ends_in_classes(port.shape)}
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
                if name not in sums:
                    floating = value.dtype.kind == "f"
                    sums[name] = _Floats(ragged=data.ragged, last=name in classed) if floating else _Integers()
                sums[name].add(value, others[name], samples)
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
