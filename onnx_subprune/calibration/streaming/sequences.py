"""The question about a recurrent layer that runs over whole sequences: what its states are wrong by, and which way its weights should go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_subprune._typing import Array, Float32, Float64, Int64
from onnx_subprune.calibration.moments.energies import Totals
from onnx_subprune.calibration.streaming.questions import Question
from onnx_subprune.calibration.streaming.target import chosen
from onnx_subprune.calibration.streaming.view import Terms, View
from onnx_subprune.graph.gradients.sequences import (
    BIAS,
    COUNTS,
    DATA,
    LOST,
    RECURRENCE,
    WANTED,
    WEIGHT,
    Sizes,
    gradient_of,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sequences(Question):
    """What the states of a layer with the constants W, R and B are wrong by, against the original's.

    states: the tensor with these, (T, D, N, H), of which `units` are left; of the data, `features`. model: see `gradients.sequences.losing`, of `sizes`.
    The answer is a sum over chunks: of the squared errors, of the energy of the states, and of the gradients, one behind the other, as they are in
    `constants`. counted: what the square of an error counts, (T, D, H). Chunks of other lengths have nothing to say.
    """

    sums = Totals
    states: str
    units: Int64
    features: Int64
    model: bytes
    sizes: Sizes
    constants: Mapping[str, Float32]
    counted: Float32

    @property
    def original(self) -> Sequence[str]:
        """See `Question`."""
        return [self.states]

    @property
    def computes(self) -> bytes:
        """See `Question`."""
        return self.model

    def terms(self, view: View) -> Terms:
        """See `Question`."""
        assert view.session is not None, "a model computes the answer"
        data = chosen(view.have[view.input], self.features, -1).astype(np.float32, copy=False)
        wanted = view.cut(view.wanted[self.states]).take(self.units, axis=-1).astype(np.float32, copy=False)
        sizes, size = self.sizes, 2 + sum(value.size for value in self.constants.values())
        if len(data) != sizes.steps or data.shape[1] > sizes.samples:
            return Terms(input=np.zeros(size))
        count = data.shape[1]
        counts = np.zeros((sizes.steps, sizes.directions, sizes.samples, sizes.units), np.float32)
        counts[:, :, :count] = self.counted[:, :, None]
        feeds = {
            **self.constants,
            DATA: _padded(data, 1, sizes.samples),
            WANTED: _padded(wanted, 2, sizes.samples),
            COUNTS: counts,
        }
        found = view.session.run(feeds, [LOST, *map(gradient_of, self.constants)])
        energy = float(np.sum(np.square(wanted, dtype=np.float64) * self.counted[:, :, None]))
        parts = [np.asarray(found[gradient_of(name)], np.float64).ravel() for name in self.constants]
        return Terms(input=np.concatenate([[float(found[LOST]), energy], *parts]))

    def apart(self, answer: Float64) -> tuple[float, float, dict[str, Float64]]:
        """Return the squared errors, the energy and the gradients that an answer holds."""
        found, at = dict[str, Float64](), 2
        for name, value in self.constants.items():
            found[name] = answer[at : at + value.size].reshape(value.shape)
            at += value.size
        return float(answer[0]), float(answer[1]), found


NAMES = WEIGHT, RECURRENCE, BIAS
"""The constants of a layer."""


def _padded(values: Array, axis: int, size: int) -> Array:
    """Return the values with zeros behind them along `axis`, as far as `size`."""
    short = size - values.shape[axis]
    if not short:
        return values
    shape = list(values.shape)
    shape[axis] = short
    return np.concatenate([values, np.zeros(shape, values.dtype)], axis=axis)
