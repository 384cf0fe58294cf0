"""What all that reads a recurrent layer changes by with the sums of its gates, at a step and at all later ones: its derivatives through time.

From what the layer reads and puts out follow its gates, and from these, backwards, what an error of a sum becomes: in the unit, in an LSTM's cell, and in
all gates of the next step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from onnx import NodeProto

from onnx_subprune._typing import Array, Float32, Float64
from onnx_subprune.graph.contractions.recurrent import sigmoid
from onnx_subprune.graph.operators import attribute, key_of

ONE = np.float32(1.0)
LOUDEST = np.float32(10.0)
"""What comes back through time is at most so many times as large as all that is heard of the units of a sample."""


def felt(
    node: NodeProto,
    constants: tuple[Array, Array, Array | None],
    backwards: Sequence[bool],
    data: Array,
    made: Array,
    heard: Array,
) -> tuple[Float64, Float64]:
    """Return sums of squares of dL/ds over steps and samples, (d, m) each, for the sums s that W makes and those that R makes.

    constants: W, R and bias. backwards: whether each direction begins at the end. data: (steps, batch, features).
    made: units h (steps, d, batch, h), which begin as zeros; activations are the usual ones. heard: the same of dL/dh, what is heard of the units outside.
    """
    weights, recurrence = (item.astype(np.float32, copy=False) for item in constants[:2])
    bias = np.zeros((len(weights), 2 * weights.shape[1]), np.float32) if constants[2] is None else constants[2]
    data, made, heard = (item.astype(np.float32, copy=False) for item in (data, made, heard))
    parts: list[tuple[Float64, Float64]] = []
    for d, backward in enumerate(backwards):
        in_time = slice(None, None, -1 if backward else 1)
        units = made[in_time, d]
        before = np.concatenate([np.zeros_like(units[:1]), units[:-1]])
        shift = bias[d].reshape(2, -1).astype(np.float32, copy=False)
        sums = data[in_time] @ weights[d].T + shift[0], before @ recurrence[d].T + shift[1]
        linear = bool(attribute(node, "linear_before_reset", 0))
        parts.append(_squares(_way(key_of(node), sums, before, recurrence[d], shift[1], linear), heard[in_time, d]))
    return np.stack([part[0] for part in parts]), np.stack([part[1] for part in parts])


class _Way(Protocol):
    """One direction of a layer, on the way back through time."""

    def back(self, step: int, units: Float32) -> tuple[Float32, Float32, Float32]:
        """Return dL/ds of the sums of W and of R at a step, and dL/dh of the units before it, from that of its units, (batch, h)."""


def _squares(way: _Way, heard: Float32) -> tuple[Float64, Float64]:
    """Sums of squares over all steps and samples, (m,) each."""
    found: list[Float64 | float] = [0.0, 0.0]
    later = np.zeros_like(heard[0])
    most = LOUDEST * np.sqrt(np.sum(heard**2, axis=(0, 2)))[:, None]
    for step in range(len(heard) - 1, -1, -1):
        *sides, later = way.back(step, heard[step] + later)
        size = np.sqrt(np.sum(later**2, axis=1, keepdims=True))
        later *= most / np.maximum(size, np.maximum(most, np.finfo(np.float32).tiny))
        found = [
            total + np.sum(np.square(side, dtype=np.float64), axis=0) for total, side in zip(found, sides, strict=True)
        ]
    return np.asarray(found[0]), np.asarray(found[1])


def _way(
    kind: str, sums: tuple[Float32, Float32], before: Float32, recurrence: Float32, shift: Float32, linear: bool
) -> _Way:
    if kind == "RNN":
        return _Rnn(np.tanh(sums[0] + sums[1]), recurrence)
    return _Lstm(sums[0] + sums[1], recurrence) if kind == "LSTM" else _Gru(sums, before, recurrence, shift, linear)


@dataclass(slots=True)
class _Rnn:
    """h = tanh(s)."""

    units: Float32
    recurrence: Float32

    def back(self, step: int, units: Float32) -> tuple[Float32, Float32, Float32]:
        """See `_Way`."""
        both = units * (ONE - self.units[step] ** 2)
        return both, both, both @ self.recurrence


class _Gru:
    """h = (1 - z) n + z h', n the candidate. linear: the reset gate comes to the product with R."""

    def __init__(
        self, sums: tuple[Float32, Float32], before: Float32, recurrence: Float32, shift: Float32, linear: bool
    ) -> None:
        h = before.shape[-1]
        self._recurrence, self._before, self._linear = recurrence, before, linear
        self._update, self._reset = (sigmoid((sums[0] + sums[1])[..., at : at + h]) for at in (0, h))
        reset = self._reset * before
        self._hidden = sums[1][..., 2 * h :] if linear else reset @ recurrence[2 * h :].T + shift[2 * h :]
        self._candidate = np.tanh(sums[0][..., 2 * h :] + self._hidden * (self._reset if linear else ONE))

    def back(self, step: int, units: Float32) -> tuple[Float32, Float32, Float32]:
        """See `_Way`."""
        update, reset, before = self._update[step], self._reset[step], self._before[step]
        h = units.shape[-1]
        of_update = units * (before - self._candidate[step]) * update * (ONE - update)
        of_candidate = units * (ONE - update) * (ONE - self._candidate[step] ** 2)
        read = of_candidate * reset if self._linear else of_candidate
        behind = read @ self._recurrence[2 * h :]
        opened = of_candidate * self._hidden[step] if self._linear else behind * before
        of_reset = opened * reset * (ONE - reset)
        gates = np.concatenate([of_update, of_reset], axis=-1)
        earlier = units * update + gates @ self._recurrence[: 2 * h] + behind * (ONE if self._linear else reset)
        return (
            np.concatenate([gates, of_candidate], axis=-1),
            np.concatenate([gates, read], axis=-1),
            earlier,
        )


@dataclass(slots=True)
class _Lstm:
    """h = o tanh(c), c = f c' + i n, from the sums of i, o, f and the candidate n. later: dL/dc of the step behind, with its forget gate."""

    sums: Float32
    recurrence: Float32
    gates: tuple[Float32, ...] = field(init=False)
    cells: Float32 = field(init=False)
    later: Float32 = field(init=False)

    def __post_init__(self) -> None:
        """Run the cells."""
        h = self.sums.shape[-1] // 4
        enters, leaves, stays = (sigmoid(self.sums[..., at : at + h]) for at in (0, h, 2 * h))
        candidate = np.tanh(self.sums[..., 3 * h :])
        self.cells = np.zeros((len(candidate) + 1, *candidate.shape[1:]), np.float32)
        for step in range(len(candidate)):
            self.cells[step + 1] = stays[step] * self.cells[step] + enters[step] * candidate[step]
        self.gates, self.later = (enters, leaves, stays, candidate), np.zeros_like(candidate[0])

    def back(self, step: int, units: Float32) -> tuple[Float32, Float32, Float32]:
        """See `_Way`."""
        enters, leaves, stays, candidate = (gate[step] for gate in self.gates)
        shown = np.tanh(self.cells[step + 1])
        cell = units * leaves * (ONE - shown**2) + self.later
        self.later = cell * stays
        sums = (
            cell * candidate * enters * (ONE - enters),
            units * shown * leaves * (ONE - leaves),
            cell * self.cells[step] * stays * (ONE - stays),
            cell * enters * (ONE - candidate**2),
        )
        both = np.concatenate(sums, axis=-1)
        return both, both, both @ self.recurrence
