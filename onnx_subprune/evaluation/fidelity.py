"""How faithful a pruned model is to the original on data, output by output."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_subprune._typing import Array
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.runtime.session import Runnable
from onnx_subprune.runtime.threads import alongside, cores_of, threads_each


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFidelity:
    """relative_error: ||y_pruned - y||_F / ||y||_F. agreement: share of equal arg-max, None where the rank is not 2."""

    relative_error: float
    cosine: float
    agreement: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """Of all floating-point outputs; accuracy of both models where labels were given."""

    samples: int
    outputs: Mapping[str, OutputFidelity]
    accuracy: tuple[float, float] | None = None


class _Sums:
    def __init__(self) -> None:
        self.lost = self.energy = self.pruned = self.product = 0.0
        self.equal = self.rows = 0
        self.ranked = True

    def add(self, original: Array, pruned: Array) -> None:
        a, b = original.astype(np.float64), pruned.astype(np.float64)
        self.lost += float(np.sum((a - b) ** 2))
        self.energy += float(np.sum(a * a))
        self.pruned += float(np.sum(b * b))
        self.product += float(np.sum(a * b))
        self.ranked = self.ranked and a.ndim == 2 and a.shape[1] > 1
        if self.ranked:
            self.equal += int(np.sum(a.argmax(axis=1) == b.argmax(axis=1)))
            self.rows += len(a)

    def result(self) -> OutputFidelity:
        norm = np.sqrt(self.energy * self.pruned)
        return OutputFidelity(
            relative_error=float(np.sqrt(self.lost / self.energy)) if self.energy > 0 else float(self.lost > 0),
            cosine=self.product / norm if norm > 0 else float(self.lost == 0),
            agreement=self.equal / self.rows if self.ranked and self.rows else None,
        )


def fidelity(
    original: Runnable,
    pruned: Runnable,
    data: Calibration,
    labels: NDArray[np.int64] | None = None,
    threads: int | None = None,
) -> Fidelity:
    """Run both models over `data` and compare; `labels` (samples,) are for the first output, a vector of scores."""
    each = threads_each(threads, data.chunk_count)
    first, second = original.session(threads=each), pruned.session(threads=each)
    names = [port.name for port in first.outputs if port.dtype.kind == "f"]
    sums = {name: _Sums() for name in names}
    right, start = [0, 0], 0

    def run(chunk: Mapping[str, Array]) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
        return first.run(chunk, names), second.run(chunk, names)

    for ours, theirs in alongside(run, ((chunk,) for chunk in data.chunks()), cores_of(threads)):
        for name in names:
            sums[name].add(ours[name], theirs[name])
        if labels is not None and names:
            part = labels[start : start + len(ours[names[0]])]
            right[0] += int(np.sum(ours[names[0]].argmax(axis=1) == part))
            right[1] += int(np.sum(theirs[names[0]].argmax(axis=1) == part))
            start += len(part)
    accuracy = (right[0] / start, right[1] / start) if start else None
    return Fidelity(
        samples=data.samples, outputs={name: item.result() for name, item in sums.items()}, accuracy=accuracy
    )
