"""Ridge regression from the rows themselves, where there are fewer of them than columns.

    X = W + B'(B B' + lam I)^-1 (T - B W),    lam = strength * mean(diag B'B)

is the X of `ridge` with n x n matrices alone. On other rows B2, T2 its output is B2 W + (B2 B')(B B' + lam I)^-1 (T - B W), so that
cross-validation needs the weights W once and no X at all. B and T are float64; W may be float32, and X has its type.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnx_subprune._typing import Float64, Weights
from onnx_subprune.selection.linalg.ridge import Validation, factors_of
from onnx_subprune.selection.linalg.strengths import downhill, likely

STRIP = 256
"""Columns of W that are float64 at once."""


def product(rows: Float64, weights: Weights) -> Float64:
    """Return rows @ weights, (n, m) float64, without a float64 copy of all weights (p, m)."""
    found = np.empty((len(rows), weights.shape[1]))
    for start in range(0, weights.shape[1], STRIP):
        part = slice(start, start + STRIP)
        found[:, part] = rows @ weights[:, part].astype(np.float64, copy=False)
    return found


@dataclass(frozen=True, eq=False)
class Dual:
    """The rows of some samples: input B (n, p), target T (n, m)."""

    input: Float64
    target: Float64

    @property
    def energy(self) -> float:
        """Energy of the target."""
        return float(np.sum(self.target**2))

    def loss(self, weights: Weights) -> float:
        """Return the squared error of `weights` less the energy of the target."""
        return float(np.sum((self.target - product(self.input, weights)) ** 2)) - self.energy

    def validated(self, other: "Dual", prior: Weights, strengths: Sequence[float], threads: int = 1) -> Validation:
        """Return the best of `strengths`, each fitted on these or the other rows and judged on the rest."""
        energy = self.energy + other.energy
        if energy <= 0.0:
            return Validation(strengths[-1], 0.0, 0.0)
        outputs = [product(item.input, prior) for item in (self, other)]
        factors = [item._factors(output) for item, output in zip((self, other), outputs, strict=True)]
        between = self.input @ other.input.T
        losses: dict[int, Float64] = {}

        def one_way(place: int, half: int, scale: Float64 | float) -> float:
            fitted, judge = ((self, other), (other, self))[half]
            rest, seen = fitted.target - scale * outputs[half], judge.target - scale * outputs[1 - half]
            solved = fitted._solved(rest, strengths[place])
            return float(np.sum((seen - (between.T if half == 0 else between) @ solved) ** 2))

        def loss(place: int) -> float:
            plain, scaled = (sum(one_way(place, half, of[half]) for half in (0, 1)) for of in ((1.0, 1.0), factors))
            losses[place] = np.array([plain, scaled])
            return min(plain, scaled)

        best, error = downhill(loss, len(strengths), likely(strengths, self.input.shape[1], len(self.input)))
        kept = sum(float(np.sum((item.target - out) ** 2)) for item, out in zip((self, other), outputs, strict=True))
        rescaled = bool(losses[best][1] < losses[best][0])
        return Validation(strengths[best], error / energy, kept / energy, rescaled)

    def rescaled(self, prior: Weights) -> Weights:
        """Return `prior` with one factor a target."""
        scaled: Weights = prior * self._factors(product(self.input, prior)).astype(prior.dtype)
        return scaled

    def _factors(self, output: Float64) -> Float64:
        return factors_of(np.sum(output * self.target, axis=0), np.sum(output**2, axis=0))

    def ridged(self, prior: Weights, strength: float, threads: int = 1) -> Weights:
        """Return X, (p, m), laid out as `prior`."""
        solved = self._solved(self.target - product(self.input, prior), strength)
        weights = prior.copy(order="K")
        for start in range(0, weights.shape[1], STRIP):
            part = slice(start, start + STRIP)
            weights[:, part] += self.input.T @ solved[:, part]
        return weights

    @cached_property
    def _factored(self) -> tuple[Float64, Float64]:
        values, vectors = np.linalg.eigh(self.input @ self.input.T)
        return np.maximum(values, 0.0), vectors

    def _solved(self, rest: Float64, strength: float) -> Float64:
        """(B B' + lam I)^-1 rest; nothing in directions without energy."""
        values, vectors = self._factored
        pulled = values + strength * float(values.sum()) / max(self.input.shape[1], 1)
        inverse = np.divide(1.0, pulled, out=np.zeros_like(pulled), where=pulled > 0.0)
        return np.asarray(vectors @ (inverse[:, None] * (vectors.T @ rest)))
