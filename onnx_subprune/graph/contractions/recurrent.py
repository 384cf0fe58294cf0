"""The two products of a recurrent layer: of what it reads with W, and of its units at the step before with R.

    W (d, m, I)   all m gates' rows of d directions read the same features                     W'[0, c, k m + j] = W[k, j, c]
    R (d, m, H)   each direction reads its own units, like the groups of a convolution         R'[k, c, j] = R[k, j, c]

The units at the step before are those that the layer puts out, a step later: the last step (of the reverse direction the first) is read by none, and
the first reads the initial state, which is no row.
"""

from collections.abc import Sequence

import numpy as np
import onnx

from onnx_subprune._typing import Array, Float32

GATES = {"GRU": 3, "LSTM": 4, "RNN": 1}
"""How many gates a unit has."""
OPERATORS = frozenset(GATES)


def reversed_directions(found: dict[str, onnx.AttributeProto], directions: int) -> tuple[bool, ...]:
    """Return, for each direction, whether it runs from the last step to the first, from the attributes of a node."""
    given = found.get("direction", b"forward")
    assert isinstance(given, bytes)
    return (False, True)[:directions] if given != b"reverse" else (True,)


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
