"""Moments of a matrix product with more columns than rows: the rows themselves, in place of a gram of more numbers.

A `Rows` answers what is asked of `Moments`. Chunks are put in the order of their digests, so that the order in which they arrive,
from batches, shards or machines, does not change a byte.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnx_subprune._typing import Array, Float32, Float64, Int64, Weights
from onnx_subprune.calibration.moments.moments import Moments
from onnx_subprune.calibration.moments.regression import check_finite, presence_in
from onnx_subprune.calibration.moments.unfold import rows, unfold
from onnx_subprune.graph.contractions.kernel import Kernel
from onnx_subprune.selection.linalg.dual import Dual, product
from onnx_subprune.selection.linalg.lowrank import LowRank
from onnx_subprune.selection.linalg.ridge import Factored
from onnx_subprune.selection.linalg.rounding import ROUNDING, mask_cross, zero_columns
from onnx_subprune.selection.problem import Problem

LEAST = 1e-4
"""Least share of the gram that counts as noise: n rows alone are explained by n columns, and say nothing about which of the others should stay."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """n rows: input (n, p) float32, target (n, m) float64; `about_means`: both are meant less their column means.

    elsewhere: (1, p), energies of columns in data that the rows are not of; None where there are no others.
    """

    input: Float32
    target: Float64
    about_means: bool = False
    elsewhere: Float64 | None = None

    def __add__(self, other: "Rows") -> "Rows":
        """Return the rows of the union of disjoint data."""
        assert not self.about_means, "means do not add up"
        assert not other.about_means, "means do not add up"
        known = self.elsewhere is not None or other.elsewhere is not None
        return Rows(
            input=np.concatenate([self.input, other.input]),
            target=np.concatenate([self.target, other.target]),
            elsewhere=self.squares + other.squares if known else None,
        )

    @property
    def count(self) -> float:
        """Number of rows."""
        return float(len(self.input))

    @property
    def columns(self) -> int:
        """How many columns, p."""
        return int(self.input.shape[1])

    @property
    def gram(self) -> None:
        """There is none."""
        return

    @property
    def squares(self) -> Float64:
        """Energies of the columns about zero, (1, p): those of channels that are dead are zero, and no others."""
        here = np.einsum("np,np->p", self.input, self.input, dtype=np.float64)[None]
        return here if self.elsewhere is None else np.where(here > 0.0, here, self.elsewhere)

    def active(self, squares: Float64) -> "Rows":
        """Return the same where columns without energy in these rows have the energies `squares`, (1, p), elsewhere in the data."""
        return replace(self, elsewhere=squares)

    @property
    def sum_target(self) -> Float64:
        """Column sums of the target, (1, m)."""
        return np.asarray(self._matrices()[1].sum(axis=0)[None])

    @property
    def energy(self) -> Float64:
        """Column sums of the squared target, (1, m)."""
        return np.asarray(np.sum(self._matrices()[1] ** 2, axis=0)[None])

    def sum_output(self, weights: Weights) -> Float64:
        """Return the column sums of the input times weights (1, p, m), (1, m)."""
        return product(self._matrices()[0].sum(axis=0)[None], weights[0])

    def on(self, columns: Int64) -> "Rows":
        """Return the rows of these columns alone."""
        rest = None if self.elsewhere is None else self.elsewhere[:, columns]
        return replace(self, input=self.input[:, columns], elsewhere=rest)

    def spread(self, columns: Int64, p: int) -> "Rows":
        """Undo `on`: return the rows of `p` columns, of which all but `columns` are zero."""
        source = np.zeros((len(self.input), p), np.float32)
        source[:, columns] = self.input
        rest = None if self.elsewhere is None else np.zeros((1, p))
        if rest is not None and self.elsewhere is not None:
            rest[:, columns] = self.elsewhere
        return replace(self, input=source, elsewhere=rest)

    def centered(self) -> "Rows":
        """Return the rows less their means: the regression with a free bias."""
        return replace(self, about_means=True)

    def plain(self) -> "Rows":
        """Return the same regression as rows that are meant as they are, so that others can be added: those less their means, where they are meant so."""
        if not self.about_means:
            return self
        source, target = self._matrices()
        return Rows(input=source.astype(np.float32), target=target, elsewhere=self.squares)

    def moments(self) -> Moments:
        """Return what these rows are as moments: with about as many of them as there are columns, the gram is less work."""
        source, target = self._matrices()
        gram = (source.T @ source)[None]
        zero_columns(gram, np.diagonal(gram, axis1=1, axis2=2) <= ROUNDING * self.squares)
        return Moments(
            count=self.count,
            gram=gram,
            cross=mask_cross(gram, (source.T @ target)[None]),
            energy=np.sum(target**2, axis=0)[None],
            sum_input=source.sum(axis=0)[None],
            sum_target=target.sum(axis=0)[None],
            about_zero=self.squares,
        )

    def with_target(self, weights: Weights) -> "Rows":
        """Return the rows whose target is the input times weights, (1, p, m)."""
        return replace(self, target=product(self.input.astype(np.float64), weights[0]))

    def retargeted(self, renewed: "Rows") -> "Rows":
        """Return `renewed` less its means."""
        return renewed.centered()

    def shifted(self, offset: Float64) -> "Rows":
        """Return the rows of the target plus `offset`, (1, m)."""
        return replace(self, target=self.target + offset)

    def normal(self, group: int, left: Int64, factored: Factored | None = None) -> Dual:
        """Return the regression on the columns `left`."""
        source, target = self._matrices()
        return Dual(source if len(left) == source.shape[1] else source[:, left], target)

    def error(self, weights: Weights, threads: int = 1) -> float:
        """Return the relative squared error of weights (1, p, m); `threads` may share in the work."""
        source, target = self._matrices()
        return Dual(source, target).loss(weights[0]) / max(float(np.sum(target**2)), 1e-300) + 1.0

    def overlap(self, other: "Rows") -> tuple[float, float, float]:
        """See `Regression`."""
        (one, _), (two, _) = self._matrices(), other._matrices()
        energies = [np.einsum("np,np->p", rows, rows) for rows in (one, two)]
        total = energies[0] + energies[1]
        weight = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0.0)

        def product(left: int, right: int) -> float:
            rows = (one, two)
            whole = float(np.sum(((rows[left] * weight) @ rows[right].T) ** 2))
            return whole - float(np.sum(weight**2 * energies[left] * energies[right]))

        return product(0, 1), product(0, 0), product(1, 1)

    def problem(self, columns: Int64, weights: Weights, left: Int64, shrinkage: float = 0.0) -> Problem:
        """See `Regression`. Its cross is turned into the directions that the target has at all: selection sees only C C'."""
        source, target = self._matrices()
        source, prior = source[:, left], weights[0] if len(left) == weights.shape[1] else weights[0][left]
        own = np.einsum("np,np->p", source, source)
        shrinkage = min(max(shrinkage, LEAST), 1.0 - LEAST)
        kept = np.sqrt(1.0 - shrinkage)
        pull = shrinkage * np.maximum(own, LEAST * float(own.mean()))[:, None]
        silent = ~np.any(source, axis=0)  # what is dead has nothing to be pulled to
        presence = presence_in(self.squares, weights)[left[columns]].sum(axis=1)
        pulled: Weights = prior
        if target.shape[1] > len(target):
            basis, turned = np.linalg.qr(target.T)  # (m, n)
            target, pulled = turned.T, prior @ basis.astype(prior.dtype)
        pulled = np.where(silent[:, None], 0.0, pulled)
        return Problem(
            gram=LowRank(kept * source, pull[:, 0]),
            cross=kept**2 * (source.T @ target) + pull * pulled,
            energy=kept**2 * float(np.sum(target**2)) + float(np.sum(pull * pulled.astype(np.float64) ** 2)),
            columns=columns,
            prior=np.asarray(prior),
            presence=presence,
        )

    def _matrices(self) -> tuple[Float64, Float64]:
        source = self.input.astype(np.float64)
        if not self.about_means:
            return source, self.target
        source -= source.mean(axis=0)
        return source, self.target - self.target.mean(axis=0)


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """The rows of one chunk; target None where there is none."""

    input: Float32
    target: Float32 | None


class RowCollector:
    """Collects rows as `Collector` collects sums."""

    def __init__(self, contraction: Kernel) -> None:
        self.contraction = contraction
        self._blocks: dict[bytes, list[Block]] = {}

    def empty(self) -> "RowCollector":
        """Return a collector of the same contraction with nothing in it."""
        return RowCollector(self.contraction)

    def products(
        self, x: Array, target: Array | None = None, positions: Int64 | None = None, *, threads: int = 1
    ) -> Block:
        """Return the rows of one chunk, which `take` adds."""
        assert positions is None, "matrix products have no positions"
        source = np.ascontiguousarray(unfold(self.contraction, x)[0])
        return Block(source, None if target is None else np.ascontiguousarray(rows(self.contraction, target)[0]))

    def take(self, found: Block, shape: Sequence[int]) -> None:
        """Add the rows of a chunk."""
        digest = hashlib.sha256(found.input.tobytes())
        if found.target is not None:
            digest.update(found.target.tobytes())
        self._blocks.setdefault(digest.digest(), []).append(found)

    def merge(self, other: "RowCollector") -> None:
        """Add everything that was added to `other`."""
        for digest, found in other._blocks.items():
            self._blocks.setdefault(digest, []).extend(found)

    def moments(self) -> Rows:
        """Return the rows; ModelError if they are not numbers."""
        found = [block for digest in sorted(self._blocks) for block in self._blocks[digest]]
        source = np.concatenate([block.input for block in found])
        targets = [block.target for block in found if block.target is not None]
        target = np.concatenate(targets).astype(np.float64) if targets else np.zeros((len(source), 0))
        check_finite(self.contraction.node, source, target)
        return Rows(input=source, target=target)
