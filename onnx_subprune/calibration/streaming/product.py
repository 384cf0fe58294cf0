"""What a recurrent layer's weight should put out: gates, which are no tensor of the model, and so are computed from what the original reads.

    gates = rows @ W + offset           of the weight W of the original, and the rows that it reads (see `graph.contractions.recurrent`)

A pruned model falls short of them by the difference to its own rows, weights and offset. Where gates are the sum of what R makes of the units and of what
W makes of the data, both can be fitted together: the rows are those of the units with those of the data behind them, and begin with units of zero.
"""

from dataclasses import dataclass, replace

import numpy as np

from onnx_subprune._typing import Array, Float32, Float64, Mask, Weights
from onnx_subprune.calibration.moments.unfold import rows
from onnx_subprune.graph.contractions.recurrent import Recurrent, data_beside, from_zero, sigmoid


@dataclass(frozen=True, slots=True, eq=False)
class Beside:
    """What a recurrent layer reads beside its units: `tensor`, with W, weights (d, p, m) and offset (d, m). summed: (m,) gates that are the sum of both."""

    tensor: str
    weights: Weights
    offset: Float64
    summed: Mask

    def rows(self, kernel: Recurrent, units: Array, data: Array) -> Float32:
        """Return the rows of both, (steps + 1, d, batch, p + p'), with channels on the last axis."""
        return np.concatenate([from_zero(units, kernel.backwards), data_beside(data, kernel.backwards)], axis=-1)

    def made(self, kernel: Recurrent, data: Array) -> Float32:
        """Return what W makes of the data beside the units that they meet, (steps + 1, d, batch, m)."""
        return kernel.gates(data_beside(data, kernel.backwards), self.weights, self.offset)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Product:
    """See the module. weights: (g, p, m), of the gates that are left. offset: (g, m).

    now: weights and offset of the pruned model, None where nobody asks for them. forced: the rows of the moments, too, are those of the original, as
    far as the pruned model has their channels: what it reads follows from the weight itself, which is not known yet. beside: with this, W is fitted too.
    """

    kernel: Recurrent
    weights: Weights
    offset: Float64
    now: tuple[Weights, Float64] | None = None
    forced: bool = False
    beside: Beside | None = None
    resets: bool = False
    """The rows are those of the data alone, and the target is `candidate`."""
    gated: "Product | None" = None
    """With this, of all units of the original, rows and target are those of a GRU's candidates: see `gated_candidate`."""

    def with_now(self, weights: Weights, offset: Float64) -> "Product":
        """Return the same with what the pruned model has."""
        return replace(self, now=(weights, offset))

    def target(self, wanted: Array) -> Float32:
        """Return the gates for what the original reads, `wanted`, with channels on the last axis as in it."""
        return self.kernel.gates(wanted, self.weights, self.offset)

    def whole(self, wanted: Array, data: Array) -> Float32:
        """Return the gates, with what W makes of the data of the original where they are the sum of both."""
        assert self.beside is not None, "nobody said what W is"
        more = np.where(self.beside.summed, self.beside.made(self.kernel, data), np.float32(0.0))
        return np.asarray(self.target(from_zero(wanted, self.kernel.backwards)) + more)

    def candidate(self, wanted: Array, data: Array, units: Array) -> Float32:
        """Return what W should make of the data for the candidates of a GRU, (steps + 1, d, batch, m / 3), whose R is `now` and reads `units`.

        A candidate is W x + r (R h + b), r the reset gate: so W x + r (R h + b - R' h' - b') makes up for what R' does not reach.
        """
        assert self.beside is not None, "nobody said what W is"
        assert self.now is not None, "nobody said what the pruned model has"
        sums, count = self.whole(wanted, data), self.weights.shape[2] // 3
        reset = sigmoid(sums[..., count : 2 * count])
        made = self.kernel.gates(from_zero(units, self.kernel.backwards), *self.now)
        short = sums[..., 2 * count :] - made[..., 2 * count :]
        return np.asarray(self.beside.made(self.kernel, data)[..., 2 * count :] + reset * short)

    def gated_candidate(self, wanted: Array, data: Array) -> tuple[Float32, Float32]:
        """Return the sums of the candidates of a GRU, W x + R (r h), and the reset gates r, which come before the product: (steps + 1, d, batch, h)."""
        assert self.beside is not None, "nobody said what W is"
        sums, count = self.whole(wanted, data), self.weights.shape[2] // 3
        reset = sigmoid(sums[..., count : 2 * count])
        made = self.kernel.gates(from_zero(wanted, self.kernel.backwards) * reset, self.weights, self.offset)
        return made[..., 2 * count :] + self.beside.made(self.kernel, data)[..., 2 * count :], reset

    def residual(self, wanted: Array, current: Array) -> Float32:
        """Return what the gates fall short by where the pruned model reads `current`, (g, n, m)."""
        assert self.now is not None, "nobody said what the pruned model has"
        return rows(self.kernel, self.target(wanted) - self.kernel.gates(current, *self.now))

    def size(self, wanted: Array) -> Float32:
        """Return the gates row by row, (g, n, m)."""
        return rows(self.kernel, self.target(wanted))
