"""What a recurrent layer's weight should put out: gates, which are no tensor of the model, and so are computed from what the original reads.

    gates = rows @ W + offset           of the weight W of the original, and the rows that it reads (see `graph.contractions.recurrent`)

A pruned model falls short of them by the difference to its own rows, weights and offset.
"""

from dataclasses import dataclass, replace

import numpy as np

from onnx_subprune._typing import Array, Float32, Float64
from onnx_subprune.calibration.moments.unfold import rows
from onnx_subprune.graph.contractions.contraction import Kernel, Kind
from onnx_subprune.selection.linalg.ridge import Weights


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Product:
    """See the module. weights: (g, p, m), of the gates that are left. offset: (g, m).

    now: weights and offset of the pruned model, None where nobody asks for them. forced: the rows of the moments, too, are those of the original, as
    far as the pruned model has their channels: what it reads follows from the weight itself, which is not known yet.
    """

    kernel: Kernel
    weights: Weights
    offset: Float64
    now: tuple[Weights, Float64] | None = None
    forced: bool = False

    def with_now(self, weights: Weights, offset: Float64) -> "Product":
        """Return the same with what the pruned model has."""
        return replace(self, now=(weights, offset))

    def target(self, wanted: Array) -> Float32:
        """Return the gates for what the original reads, `wanted`, with channels on the last axis as in it."""
        return _gates(self.kernel, wanted, self.weights, self.offset)

    def residual(self, wanted: Array, current: Array) -> Float32:
        """Return what the gates fall short by where the pruned model reads `current`, (g, n, m)."""
        assert self.now is not None, "nobody said what the pruned model has"
        return rows(self.kernel, self.target(wanted) - _gates(self.kernel, current, *self.now))

    def size(self, wanted: Array) -> Float32:
        """Return the gates row by row, (g, n, m)."""
        return rows(self.kernel, self.target(wanted))


def _gates(kernel: Kernel, tensor: Array, weights: Weights, offset: Float64) -> Float32:
    wide, matrix, shift = (item.astype(np.float32, copy=False) for item in (tensor, weights, offset))
    if kernel.kind is Kind.RECURRENT_UNITS:  # (steps, d, batch, p) by (d, p, m)
        return np.asarray(wide @ matrix + shift[:, None, :])
    return np.asarray(wide @ matrix[0] + shift[0])
