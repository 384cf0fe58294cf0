"""What the units of a recurrent layer change by with the sums of their gates, step by step: its derivatives, from what it reads and puts out."""

from collections.abc import Sequence

import numpy as np
from onnx import NodeProto

from onnx_subprune._typing import Array, Float32, Float64
from onnx_subprune.graph.operators import attribute, key_of


def slopes(
    node: NodeProto,
    constants: tuple[Array, Array, Array | None],
    backwards: Sequence[bool],
    data: Array,
    made: Array,
) -> tuple[Float64, Float64]:
    """Return sums of squares of dh/ds over steps and samples, (d, m) each, for the sums s that W makes and those that R makes.

    constants: W, R and bias. backwards: whether each direction begins at the end. data: (steps, batch, features).
    made: units (steps, d, batch, h), which begin as zeros; activations are the usual ones.
    """
    weights, recurrence = (item.astype(np.float32, copy=False) for item in constants[:2])
    bias = np.zeros((len(weights), 2 * weights.shape[1]), np.float32) if constants[2] is None else constants[2]
    data, made = data.astype(np.float32, copy=False), made.astype(np.float32, copy=False)
    parts: list[tuple[Float64, Float64]] = []
    for d, backward in enumerate(backwards):
        before = np.zeros(made[:, d].shape, np.float32)
        before[slice(0, -1) if backward else slice(1, None)] = made[slice(1, None) if backward else slice(0, -1), d]
        shift = bias[d].reshape(2, -1).astype(np.float32, copy=False)
        sums = data @ weights[d].T + shift[0], before @ recurrence[d].T + shift[1]
        if key_of(node) == "RNN":
            both = (np.float32(1.0) - np.square(np.tanh(sums[0] + sums[1])),) * 2
        else:
            linear = bool(attribute(node, "linear_before_reset", 0))
            both = _gru(sums, before, recurrence[d], shift[1], linear=linear)
        mean_squares = [np.sum(np.square(part, dtype=np.float64), axis=(0, 1)) for part in both]
        parts.append((mean_squares[0], mean_squares[1]))
    return np.stack([part[0] for part in parts]), np.stack([part[1] for part in parts])


def _gru(
    sums: tuple[Float32, Float32], before: Float32, recurrence: Float32, shift: Float32, *, linear: bool
) -> tuple[Float32, Float32]:
    """Derivatives of a GRU's units by the sums of update, reset and candidate. linear: the reset gate comes to the product with R."""
    h = before.shape[-1]
    one = np.float32(1.0)
    update, reset = (one / (one + np.exp(-(sums[0] + sums[1])[..., at : at + h])) for at in (0, h))
    hidden = sums[1][..., 2 * h :] if linear else (reset * before) @ recurrence[2 * h :].T + shift[2 * h :]
    candidate = np.tanh(sums[0][..., 2 * h :] + (reset * hidden if linear else hidden))
    by_candidate = (one - update) * (one - candidate**2)
    by_update = update * (one - update) * (before - candidate)
    reached = by_candidate * hidden if linear else (by_candidate @ recurrence[2 * h :]) * before
    by_reset = reached * reset * (one - reset)
    data = np.concatenate([by_update, by_reset, by_candidate], axis=-1)
    return data, np.concatenate([by_update, by_reset, by_candidate * reset if linear else by_candidate], axis=-1)
