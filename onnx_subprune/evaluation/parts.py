"""Parts of an output that are numbers of different kinds: boxes in pixels beside scores below one, which would not count in one sum of squares."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_subprune._typing import Array, Float64
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.observation import Observation
from onnx_subprune.graph.outputs import Seams, seams

APART = 100.0
"""Parts are judged one by one where their mean squares differ by more than this factor."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Where outputs are cut: by name, the axis and the ends of the parts."""

    cuts: Mapping[str, tuple[int, tuple[int, ...]]]

    def of(self, outputs: Mapping[str, Array], *, whole: bool = False) -> dict[str, Array]:
        """Return the parts of `outputs`, named as Python would index them; whole: beside the outputs themselves."""
        found: dict[str, Array] = {}
        for name, value in outputs.items():
            if whole or name not in self.cuts:
                found[name] = value
            if name in self.cuts:
                axis, ends = self.cuts[name]
                starts = (0, *ends[:-1])
                for start, end in zip(starts, ends, strict=True):
                    found[f"{name}[{':, ' * axis}{start}:{end}]"] = _between(value, axis, start, end)
        return found


def parts_of(network: Network, observation: Observation, outputs: Iterable[str]) -> dict[str, Seams]:
    """Return where the outputs of a model may be cut, those that may be cut at all."""
    found = {name: seams(network, observation.shapes, name) for name in outputs}
    return {name: places for name, places in found.items() if places}


def apart(places: Mapping[str, Seams], reference: Sequence[Mapping[str, Array]]) -> Parts:
    """Return the parts of different kinds, seen in what the original puts out: one mapping of outputs a chunk."""
    cuts: dict[str, tuple[int, tuple[int, ...]]] = {}
    for name, axes in places.items():
        values = [chunk[name] for chunk in reference if name in chunk]
        if not values or values[0].dtype.kind != "f" or values[0].ndim <= max(axes):
            continue
        most = APART
        for axis, starts in axes.items():
            ends = (*starts, values[0].shape[axis])
            ratio = _ratio(values, axis, ends)
            if ratio > most:
                most, cuts[name] = ratio, (axis, ends)
    return Parts(cuts)


def _between(value: Array, axis: int, start: int, end: int) -> Array:
    return np.asarray(value[(slice(None),) * axis + (slice(start, end),)])


def _ratio(values: Sequence[Array], axis: int, ends: tuple[int, ...]) -> float:
    """The largest mean square of a part over the smallest that is above zero."""
    if (
        len(ends) < 2
        or ends[-2] >= ends[-1]
        or any(value.ndim <= axis or value.shape[axis] != ends[-1] for value in values)
    ):
        return 1.0  # an axis whose size depends on values
    squares: Float64 = np.zeros(ends[-1])
    for value in values:
        moved = np.moveaxis(value, axis, 0).reshape(ends[-1], -1).astype(np.float64)
        squares += (moved**2).sum(axis=1)
    means = [float(squares[start:end].mean()) for start, end in zip((0, *ends[:-1]), ends, strict=True)]
    means = [mean for mean in means if mean > 0.0]
    return max(means) / min(means) if means and np.isfinite(max(means)) else 1.0
