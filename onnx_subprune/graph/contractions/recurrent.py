"""The two products of a recurrent layer: of what it reads with W, and of its units at the step before with R.

    W (d, m, I)   all m gates' rows of d directions read the same features                     W'[0, c, k m + j] = W[k, j, c]
    R (d, m, H)   each direction reads its own units, like the groups of a convolution         R'[k, c, j] = R[k, j, c]

The units at the step before are those that the layer puts out, a step later: the last step (of the reverse direction the first) is read by none, and
the first reads the initial state, which is no row.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import DTypeLike

from onnx_subprune._typing import Array, Float32, Float64, Int64, Weights
from onnx_subprune.graph.contractions.kernel import Kernel, label_of
from onnx_subprune.graph.operators import attributes, key_of

GATES = {"GRU": 3, "LSTM": 4, "RNN": 1}
"""How many gates a unit has."""
OPERATORS = frozenset(GATES)


def reversed_directions(found: dict[str, onnx.AttributeProto], directions: int) -> tuple[bool, ...]:
    """Return, for each direction, whether it runs from the last step to the first, from the attributes of a node."""
    given = found.get("direction", b"forward")
    assert isinstance(given, bytes)
    return (False, True)[:directions] if given != b"reverse" else (True,)


def sigmoid(sums: Float32) -> Float32:
    """Return the sigmoid, element by element, in float32; sums far below zero overflow nothing."""
    return np.asarray(np.float32(1.0) / (np.float32(1.0) + np.exp(-np.maximum(sums, np.float32(-80.0)))))


def from_zero(units: Array, backwards: Sequence[bool]) -> Float32:
    """Return the units, (steps, d, batch, c), with zeros where each direction begins: (steps + 1, d, batch, c)."""
    steps, *rest = units.shape
    found = np.zeros((steps + 1, *rest), np.float32)
    for direction, backward in enumerate(backwards):
        found[slice(0, steps) if backward else slice(1, None), direction] = units[:, direction]
    return found


def data_beside(tensor: Array, backwards: Sequence[bool]) -> Float32:
    """Return what the layer reads, (steps, batch, c), beside the units of `from_zero` that it meets: (steps + 1, d, batch, c)."""
    steps, *rest = tensor.shape
    found = np.zeros((steps + 1, len(backwards), *rest), np.float32)
    for direction, backward in enumerate(backwards):
        found[slice(1, None) if backward else slice(0, steps), direction] = tensor
    return found


def units_before(tensor: Array, backwards: Sequence[bool]) -> Float32:
    """Return what the layer puts out, (steps, d, batch, c), at the step before each, as (d, c, n).

    Of a last state, which has no axis of steps, and of a single step, all is returned.
    """
    plain = tensor.astype(np.float32, copy=False)
    plain = plain[None] if plain.ndim == 3 else plain
    parts = []
    for direction, backward in enumerate(backwards):
        mine = plain[:, direction]
        if len(mine) > 1:
            mine = mine[1:] if backward else mine[:-1]
        parts.append(mine.reshape(-1, mine.shape[-1]).T)
    return np.ascontiguousarray(np.stack(parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrent(Kernel):
    """What both weights have in common. backwards: for each direction, whether it begins at the last step. units: how many it has."""

    backwards: tuple[bool, ...]
    units: int = 0

    def from_matrix(self, matrix: Weights, dtype: DTypeLike, weight_shape: Sequence[int]) -> Array:
        """Return the weight; see `Kernel`."""
        return np.ascontiguousarray(matrix.transpose(0, 2, 1)).reshape(tuple(weight_shape)).astype(dtype)

    @abstractmethod
    def gates(self, tensor: Array, weights: Weights, offset: Float64) -> Float32:
        """Return `tensor` times `weights`, plus `offset`, channels on the last axis."""


class InputWeight(Recurrent):
    """W: the rows of all directions' gates read the same features."""

    __slots__ = ()

    def to_matrix(self, weight: Array) -> Weights:
        """Return the weight as W; see `Kernel`."""
        wide = weight.astype(np.float64)
        return np.ascontiguousarray(wide.reshape(-1, wide.shape[2]).T)[None]

    def gates(self, tensor: Array, weights: Weights, offset: Float64) -> Float32:
        """Return (..., features) by (1, features, m); see `Recurrent`."""
        wide, matrix, shift = (item.astype(np.float32, copy=False) for item in (tensor, weights, offset))
        return np.asarray(wide @ matrix[0] + shift[0])


class UnitWeight(Recurrent):
    """R: each direction reads its own units at the step before."""

    __slots__ = ()

    @property
    def alike(self) -> bool:
        """True: see `Kernel`."""
        return True

    def to_matrix(self, weight: Array) -> Weights:
        """Return the weight as W; see `Kernel`."""
        return np.ascontiguousarray(weight.astype(np.float64).transpose(0, 2, 1))

    def by_channel(self, tensor: Array, axis: int) -> Float32:
        """Return the units before each step, (groups, channels, n)."""
        return units_before(tensor, self.backwards)

    def columns_of(self, rows: Int64) -> Int64:
        """Return the columns; see `Kernel`."""
        return np.asarray((rows[..., None] + self.units * np.arange(self.groups)).reshape(*rows.shape[:-1], -1))

    def gates(self, tensor: Array, weights: Weights, offset: Float64) -> Float32:
        """Return (steps, d, batch, p) by (d, p, m); see `Recurrent`."""
        wide, matrix, shift = (item.astype(np.float32, copy=False) for item in (tensor, weights, offset))
        return np.asarray(wide @ matrix + shift[:, None, :])


def read(node: onnx.NodeProto, weight_shape: tuple[int, ...], weight_slot: int) -> Kernel | None:
    """Return the kernel of W or R of a GRU, LSTM or RNN; see `kernel.Reader`."""
    if key_of(node) not in OPERATORS or weight_slot not in (1, 2) or len(weight_shape) != 3:
        return None
    directions, rows, columns = weight_shape
    backwards = reversed_directions(attributes(node), directions)
    if weight_slot == 1:
        return InputWeight(node=label_of(node), backwards=backwards, units=rows // GATES[key_of(node)])
    return UnitWeight(node=label_of(node), backwards=backwards, units=columns, groups=directions)
