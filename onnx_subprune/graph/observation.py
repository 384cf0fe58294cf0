"""What the runs of a model have shown: shapes, values that are sizes, and what differs between two runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.graph.example import Example


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What two runs of the model show.

    shapes: of all activations, in the first run.
    values: small integer tensors, in the first run; `varying` masks their elements that differ in the second.
    other_shapes: of all activations, in the second run (empty if there was none).
    varying_axes: axes whose size differs between the runs, by tensor.
    batch: samples in the first run. example: its feeds.
    rows: how many rows a sample has on the first axis of tensors that hold samples one after another there; 0 for those that are the same
    however many samples there are; see `rows`. Empty where nobody asked, and where the model does not take two samples, or one.
    invented: inputs whose open sizes were made up, with their declared shapes.
    opaque: what cannot leave a run as an array of numbers: sequences, optionals, texts, bfloat16, float8, 4 bits.
    judged: the outputs that are floating-point numbers; where there are none, the nearest such tensors that the outputs are computed from. In the place of
    those that are `ranked` what their rows are chosen from, by output: see `ranking`.
    """

    shapes: Mapping[str, tuple[int, ...]]
    values: Mapping[str, NDArray[np.generic]]
    varying: Mapping[str, NDArray[np.bool_]]
    other_shapes: Mapping[str, tuple[int, ...]]
    varying_axes: Mapping[str, frozenset[int]]
    batch: int
    example: Example
    rows: Mapping[str, int] = field(default_factory=dict)
    invented: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)
    opaque: frozenset[str] = frozenset()
    judged: tuple[str, ...] = ()
    ranked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def fronts(self) -> tuple[str, ...]:
        """What the rows of `ranked` outputs are chosen from."""
        return tuple(dict.fromkeys(name for names in self.ranked.values() for name in names))

    def positions(self, tensor: str, channels: int) -> int:
        """Return how many places a sample has in a tensor beside its axis of channels, wherever the samples are."""
        shape = self.shapes[tensor]
        return max(1, prod(shape) // max(1, shape[channels] * self.batch))
