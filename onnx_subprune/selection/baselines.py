"""Criteria to compare with: random, norms of weights and activations, and selections that do not look at the targets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnx_subprune._typing import Float64, Int64
from onnx_subprune.errors import at_least, typed_fields
from onnx_subprune.selection.linalg.elimination import Elimination
from onnx_subprune.selection.problem import Problem
from onnx_subprune.selection.selector import Choice, pick, ranked


def _summed(problems: Sequence[Problem], scores: Sequence[Float64]) -> Float64:
    """Sum over consumers, each scaled to mean 1."""
    return np.asarray(np.sum([score / max(float(score.mean()), 1e-300) for score in scores], axis=0), np.float64)


def _squares(problem: Problem) -> Float64:
    """Squared norm of each channel's activation columns, (w, b)."""
    return problem.gram.diagonal()[problem.columns]


@typed_fields
@dataclass(frozen=True, slots=True)
class Random:
    """Channels drawn without looking; nested over sizes."""

    seed: int = 0

    def __post_init__(self) -> None:
        at_least(0, seed=self.seed)

    def path(
        self, problems: Sequence[Problem], sizes: Sequence[int], cells: Int64, threads: int = 1
    ) -> tuple[Choice, ...]:
        """See `Selector`."""
        return ranked(problems, np.random.default_rng(self.seed).random(problems[0].width), sizes, cells)


@typed_fields
@dataclass(frozen=True, slots=True)
class WeightNorm:
    """Norm of the weights that read a channel: order 1 or 2."""

    order: Literal[1, 2] = 2

    def path(
        self, problems: Sequence[Problem], sizes: Sequence[int], cells: Int64, threads: int = 1
    ) -> tuple[Choice, ...]:
        """See `Selector`."""
        scores = [(np.abs(p.prior[p.columns]) ** self.order).sum(axis=(1, 2)) for p in problems]
        return ranked(problems, _summed(problems, scores), sizes, cells)


@dataclass(frozen=True, slots=True)
class ActivationNorm:
    """Norm of a channel's activations."""

    def path(
        self, problems: Sequence[Problem], sizes: Sequence[int], cells: Int64, threads: int = 1
    ) -> tuple[Choice, ...]:
        """See `Selector`."""
        return ranked(problems, _summed(problems, [np.sqrt(_squares(p).sum(axis=1)) for p in problems]), sizes, cells)


@dataclass(frozen=True, slots=True)
class Wanda:
    """|weight| times activation norm, summed over the weights that read a channel (Sun et al., ICLR 2024)."""

    def path(
        self, problems: Sequence[Problem], sizes: Sequence[int], cells: Int64, threads: int = 1
    ) -> tuple[Choice, ...]:
        """See `Selector`."""
        scores = [(np.abs(p.prior[p.columns]) * np.sqrt(_squares(p))[:, :, None]).sum(axis=(1, 2)) for p in problems]
        return ranked(problems, _summed(problems, scores), sizes, cells)


@dataclass(frozen=True, slots=True)
class InterpolativeDecomposition:
    """Column-pivoted factorization of the activations, blind to the weights (Chee et al., NeurIPS 2022)."""

    def path(
        self, problems: Sequence[Problem], sizes: Sequence[int], cells: Int64, threads: int = 1
    ) -> tuple[Choice, ...]:
        """See `Selector`. The pivot is the channel with the largest energy that the chosen ones do not explain."""
        grams = [problem.reduced()[0] for problem in problems]
        shares = [1.0 / max(float(gram.diagonal().sum()), 1e-300) for gram in grams]
        rest = [Elimination(gram, np.zeros((len(gram), 0)), p.block) for gram, p in zip(grams, problems, strict=True)]
        scores = np.zeros(problems[0].width)
        for step in range(len(scores)):
            left = np.sum([share * state.energies() for share, state in zip(shares, rest, strict=True)], axis=0)
            best = pick(left, scores == 0, largest=True)
            scores[best] = len(scores) - step
            for state in rest:
                state.eliminate(best)
        return ranked(problems, scores, sizes, cells)


@typed_fields
@dataclass(frozen=True, slots=True)
class LayerSampling:
    """Importance sampling by empirical sensitivities (Liebenwein et al., ICLR 2020).

    The sensitivity of a channel is the largest share that it has in any output of a consumer, here from root mean squares.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        at_least(0, seed=self.seed)

    def path(
        self, problems: Sequence[Problem], sizes: Sequence[int], cells: Int64, threads: int = 1
    ) -> tuple[Choice, ...]:
        """See `Selector`."""
        shares = []
        for p in problems:
            parts = (np.abs(p.prior[p.columns]) * np.sqrt(_squares(p))[:, :, None]).sum(axis=1)
            shares.append((parts / np.maximum(parts.sum(axis=0), 1e-300)).max(axis=1))
        sensitivity = np.max(shares, axis=0)
        draws = np.random.default_rng(self.seed).gumbel(size=len(sensitivity))
        return ranked(problems, np.exp(np.log(np.maximum(sensitivity, 1e-300)) + draws), sizes, cells)
