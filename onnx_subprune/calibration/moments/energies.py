"""The energy of a residual: what a contraction puts out short of its aim, squared and summed over samples and positions."""

from collections.abc import Sequence

import numpy as np

from onnx_subprune._typing import Array, Float64, Int64
from onnx_subprune.calibration.moments.moments import Moments
from onnx_subprune.graph.contractions.contraction import Kernel
from onnx_subprune.selection.linalg.summation import CompensatedSum


class Energies:
    """A sum over chunks, in the manner of `Collector`; its moments have nothing but the energy, of all channels together."""

    def __init__(self, contraction: Kernel) -> None:
        self.contraction = contraction
        self._sum = CompensatedSum()

    def empty(self) -> "Energies":
        """Return another with nothing in it."""
        return Energies(self.contraction)

    def products(
        self, residual: Array, target: Array | None = None, positions: Int64 | None = None, *, threads: int = 1
    ) -> Float64:
        """Return the energy of a chunk's `residual`, which `take` adds; there is no target, and all positions count."""
        rows = residual.astype(np.float32, copy=False).reshape(len(residual), -1)
        return np.array([np.einsum("ij,ij->i", rows, rows).sum(dtype=np.float64)])

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
        """Return the energy, (1, 1), zero if nothing was added; all else is empty."""
        none = np.zeros((1, 0, 0))
        energy = np.zeros((1, 1)) if self._sum.hi is None else self._sum.total()[None]
        return Moments(count=0.0, gram=none, cross=none, energy=energy, sum_input=none[0], sum_target=none[0])
