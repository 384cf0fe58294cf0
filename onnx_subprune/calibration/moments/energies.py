"""The energy of a residual: what a contraction puts out short of its aim, squared and summed over samples and positions.

It is summed as it is, so that it is zero where nothing is lost: from moments it would be a difference of large numbers.
"""

from collections.abc import Sequence

import numpy as np

from onnx_subprune._typing import Array, Float32, Float64, Int64
from onnx_subprune.calibration.moments.moments import Moments
from onnx_subprune.calibration.moments.scale import largest_in, scale_of, scaled
from onnx_subprune.calibration.moments.unfold import unfold
from onnx_subprune.graph.contractions.kernel import Kernel
from onnx_subprune.selection.linalg.summation import CompensatedSum


class Energies:
    """A sum over chunks, in the manner of `Collector`.

    Its moments have nothing but the energy, (1, 2), of all channels together: that of the residual and, where it is given, that of the aim.
    """

    def __init__(self, contraction: Kernel) -> None:
        self.contraction = contraction
        self._sum = CompensatedSum()

    def empty(self) -> "Energies":
        """Return another with nothing in it."""
        return Energies(self.contraction)

    def products(
        self, residual: Array, target: Array | None = None, positions: Int64 | None = None, *, threads: int = 1
    ) -> Float64:
        """Return the energies of a chunk's `residual` and of its aim, which `take` adds; all positions count."""
        return np.array([_energy(residual), 0.0 if target is None else _energy(target)])

    def take(self, found: Float64, shape: Sequence[int]) -> None:
        """Add the energy of a chunk."""
        self._sum.add(found)

    def add(self, residual: Array) -> None:
        """Add the energy of a chunk's `residual`."""
        self.take(self.products(residual), residual.shape)

    def merge(self, other: "Energies") -> None:
        """Add everything that was added to `other`."""
        self._sum.merge(other._sum)

    def moments(self) -> Moments:
        """Return the energies, (1, 2), zero if nothing was added; all else is empty."""
        none = np.zeros((1, 0, 0))
        energy = np.zeros((1, 2)) if self._sum.hi is None else self._sum.total()[None]
        return Moments(count=0.0, gram=none, cross=none, energy=energy, sum_input=none[0], sum_target=none[0])


class Peaks(Energies):
    """The largest square of every channel of the input, summed over chunks: the energy of its moments, (1, channels), zero for dead channels alone."""

    def empty(self) -> "Peaks":
        """Return another with nothing in it."""
        return Peaks(self.contraction)

    def products(
        self, residual: Array, target: Array | None = None, positions: Int64 | None = None, *, threads: int = 1
    ) -> Float64:
        """Return the largest squares in the input of a chunk, which `take` adds; all positions count, and there is no target."""
        if self.contraction.alike:
            found = unfold(self.contraction, residual)
            return np.asarray(np.abs(found).max(axis=1, initial=0.0).ravel().astype(np.float64) ** 2)
        axis = self.contraction.input_axis % residual.ndim
        largest = np.abs(residual).max(axis=tuple(at for at in range(residual.ndim) if at != axis), initial=0.0)
        return np.asarray(largest.astype(np.float64) ** 2)


class Totals(Energies):
    """A sum of vectors, which questions compute by themselves: the energy of its moments, (1, n)."""

    def empty(self) -> "Totals":
        """Return another with nothing in it."""
        return Totals(self.contraction)

    def products(
        self, residual: Array, target: Array | None = None, positions: Int64 | None = None, *, threads: int = 1
    ) -> Float64:
        """Return the vector of a chunk, which `take` adds."""
        return residual.astype(np.float64, copy=False)


def _energy(values: Array) -> float:
    rows = values.reshape(len(values), -1)
    scale = scale_of(largest_in(rows))
    level: Float32 = scaled(rows, scale).astype(np.float32, copy=False)
    return float(np.einsum("ij,ij->i", level, level).sum(dtype=np.float64)) / scale**2
