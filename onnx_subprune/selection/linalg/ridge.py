"""Least squares on moments, pulled towards prior weights.

    X = (G + lam I)^-1 (C + lam W),    lam = strength * mean(diag G)

minimises ||T - B X||^2 + lam ||X - W||^2. The strength is chosen by cross-validation on the moments of two disjoint halves: X is
fitted on one and judged on the other by tr(X'GX) - 2 tr(X'C), which is its error up to the energy of the target.

W may be *rescaled* before: one factor a target, with which B W meets it best. With few rows a factor is all that they tell for sure.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

from onnx_subprune._typing import Float64, Int64, Weights
from onnx_subprune.selection.linalg.lapack import cholesky, solved
from onnx_subprune.selection.linalg.lowrank import Gram
from onnx_subprune.selection.linalg.strengths import downhill, likely

Solver = Callable[[Float64], Float64]

STRENGTHS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
TARGETS = 128
"""About so many targets, of more, are fitted and judged to find the best strength: it is one for all of them."""
SEARCHED = 2048
"""Columns at most that the best strength is sought on: each strength costs a factorization of either half. It grows with the number of columns."""
LARGEST = 4.0
"""No target is scaled by more: sliced weights put out less than the whole, seldom a quarter of it."""
DEPENDENT = 1e-9
"""Of columns with energies scaled to about 1, directions with less than this share of the largest count as linearly dependent."""


class Factors:
    """Factorizations of the ridged grams of one contraction, within `limit` bytes: only targets change when they are renewed.

    `of` gives those of one gram, under a name that stands for it.
    """

    def __init__(self, limit: int) -> None:
        self.left = limit
        self._known: dict[int, Factored] = {}

    def of(self, name: int) -> "Factored":
        """Return what is known of the gram called `name`."""
        return self._known.setdefault(name, Factored(self))


class Factored:
    """The solvers of one gram by strength."""

    def __init__(self, kept: Factors) -> None:
        self._kept = kept
        self._solvers: dict[float, Solver] = {}

    def solver(self, strength: float, ridged: Callable[[], Float64], threads: int) -> "Solver":
        """Return the solver at `strength`, made of `ridged()` if it is not known."""
        if strength in self._solvers:
            return self._solvers[strength]
        gram = ridged()
        made = factorized(gram, threads)
        if gram.nbytes <= self._kept.left:
            self._kept.left -= gram.nbytes
            self._solvers[strength] = made
        return made


@dataclass(frozen=True, slots=True)
class Validation:
    """What cross-validation found: the best strength, its held-out error and that of the prior weights, relative to the energy judged.

    rescaled: True if the prior weights are to be rescaled before the fit is pulled towards them.
    """

    strength: float
    error: float
    prior_error: float
    rescaled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Normal:
    """The normal equations of so many rows: gram (p, p), cross (p, m), energies (m,) of the targets; `factored`: what is known of the gram."""

    gram: Float64
    cross: Float64
    energies: Float64
    rows: float
    factored: Factored | None = None

    @property
    def energy(self) -> float:
        """Energy of all targets."""
        return float(self.energies.sum())

    def every(self, apart: int) -> "Normal":
        """Return the equations of one target in so many."""
        return replace(self, cross=self.cross[:, ::apart], energies=self.energies[::apart])

    def among(self, columns: Int64, prior: Weights) -> "Normal":
        """Return the equations of some columns, for what the others leave of the targets with the weights `prior`; energies stay."""
        gram = self.gram[np.ix_(columns, columns)]
        others = self.gram[columns] @ prior - gram @ prior[columns]
        return Normal(gram=gram, cross=self.cross[columns] - others, energies=self.energies, rows=self.rows)

    def loss(self, weights: Weights) -> float:
        """Return the squared error of `weights` less the energy of the target."""
        return float(summed(weights * (self.gram @ weights)) - 2.0 * summed(weights * self.cross))

    def validated(self, other: "Normal", prior: Weights, strengths: Sequence[float], threads: int = 1) -> Validation:
        """Return the best of `strengths`, each fitted on one of the two and judged on the other; with 2 `threads`, side by side."""
        return cross_validated(self, other, prior, strengths, threads)

    def rescaled(self, prior: Weights) -> Weights:
        """Return `prior` with one factor a target."""
        factors = factors_of(np.add.reduce(prior * self.cross), np.add.reduce(prior * (self.gram @ prior)))
        scaled: Weights = prior * factors.astype(prior.dtype)
        return scaled

    def ridged(self, prior: Weights, strength: float, threads: int = 1) -> Weights:
        """Return the weights X of the module's formula, (p, m)."""
        return ridge(self.gram, self.cross, prior, strength, self.factored, threads)


def summed(values: Float64) -> np.float64:
    """Return the sum of all values: `numpy.sum` takes longer than the sum, where there are as few as in a depthwise convolution."""
    total: np.float64 = np.add.reduce(values, axis=None)
    return total


def factors_of(crossed: Float64, energies: Float64) -> Float64:
    """Return the factors, (m,), for outputs with these energies and products with their targets; 1 where there is no output."""
    factors = np.divide(crossed, energies, out=np.ones_like(crossed), where=energies > 0.0)
    return np.asarray(np.clip(factors, 0.0, LARGEST))


def scales(gram: Gram) -> Float64:
    """Return powers of two, (p,), that bring each column's energy to about 1 without rounding; 0 for columns without any."""
    energies = gram.diagonal()
    return np.where(energies > 0.0, np.ldexp(1.0, -(np.frexp(energies)[1] // 2)), 0.0)


def pseudo_solve(gram: Float64, cross: Float64) -> Float64:
    """Return weights X with G X = C, as far as there are any; dependent directions get no weight.

    Dependence is judged with every column scaled to an energy of about 1: a channel may be small without being superfluous.
    """
    return factorized(gram)(cross)


def factorized(gram: Float64, threads: int = 1) -> Solver:
    """Return what `pseudo_solve` does with `gram`, for any cross; `threads` share in it where there are many targets."""
    if not len(gram):
        return np.zeros_like
    energies = gram.diagonal()
    try:
        factor = cholesky(gram)
        if (factor.diagonal() ** 2 > DEPENDENT * energies).all():  # pivots scale with their columns
            return lambda cross: solved(factor, cross, threads)
    except np.linalg.LinAlgError:
        pass
    scale = scales(gram)[:, None]
    values, vectors = np.linalg.eigh(gram * scale * scale.T)
    use = values > DEPENDENT * values[-1]
    basis, energies = vectors[:, use], values[use, None]
    return lambda cross: np.asarray(scale * (basis @ ((basis.T @ (scale * cross)) / energies)))


def ridge(
    gram: Float64, cross: Float64, prior: Weights, strength: float, factored: Factored | None = None, threads: int = 1
) -> Weights:
    """Return the weights X of the module's formula, (p, m); strength 0 is plain least squares."""
    if strength == 0.0:
        return pseudo_solve(gram, cross)
    pull = strength * float(summed(gram.diagonal()) / max(len(gram), 1))
    if pull <= 0.0:
        return prior.copy()

    def ridged() -> Float64:
        found = gram.copy()
        found.reshape(-1)[:: len(gram) + 1] += pull
        return found

    solver = factorized(ridged(), threads) if factored is None else factored.solver(strength, ridged, threads)
    return solver(cross + pull * prior)


def cross_validated(
    first: Normal, second: Normal, prior: Weights, strengths: Sequence[float] = STRENGTHS, threads: int = 1
) -> Validation:
    """Return the best of `strengths`, towards `prior` or that rescaled, each fitted on one half and judged on the other, both ways.

    It is found on about `TARGETS` of the targets, and on at most `SEARCHED` of the columns.
    """
    apart = max(1, prior.shape[1] // TARGETS)
    first, second, prior = first.every(apart), second.every(apart), prior[:, ::apart]
    energy = first.energy + second.energy
    if energy <= 0.0:
        return Validation(strengths[-1], 0.0, 0.0)

    def both_ways(loss: Callable[[Normal, Normal], Float64]) -> Float64:
        if threads < 2:
            return loss(first, second) + loss(second, first)
        with ThreadPoolExecutor(1) as pool:
            there = pool.submit(loss, first, second)
            back = loss(second, first)
            return there.result() + back

    if len(prior) > SEARCHED:
        some = np.arange(0, len(prior), -(-len(prior) // SEARCHED))
        narrow = cross_validated(first.among(some, prior), second.among(some, prior), prior[some], strengths, threads)
        strengths = (narrow.strength * len(prior) / len(some),)
    posed = cache(partial(_posed, prior)) if len(strengths) > 1 else partial(_posed, prior)
    losses: dict[int, Float64] = {}

    def fitted(place: int) -> float:
        def one_way(half: Normal, other: Normal) -> Float64:
            found, targets = ridge(half.gram, *posed(half), strengths[place]), prior.shape[1]
            return np.array([other.loss(found[:, :targets]), other.loss(found[:, targets:])])

        losses[place] = both_ways(one_way)
        return float(losses[place].min())

    best, least = downhill(fitted, len(strengths), likely(strengths, len(prior), first.rows))
    plain = float(both_ways(lambda _, other: np.array([other.loss(prior)]))[0])
    rescaled = bool(losses[best][1] < losses[best][0])
    return Validation(strengths[best], 1.0 + least / energy, 1.0 + plain / energy, rescaled)


def _posed(prior: Weights, half: Normal) -> tuple[Float64, Float64]:
    """The products with its targets, twice, and what these are fitted towards, the prior weights and those rescaled: (p, 2 m) each."""
    both: Float64 = np.hstack([prior, half.rescaled(prior)]).astype(np.float64, copy=False)
    return np.hstack([half.cross, half.cross]), both
