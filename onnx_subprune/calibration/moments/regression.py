"""What selection and refit ask of a contraction's data, whatever form these have: `Moments`, or `Rows` where those are fewer numbers."""

from collections.abc import Sequence
from typing import Protocol, Self

import numpy as np

from onnx_subprune._typing import Array, Float64, Int64, Weights
from onnx_subprune.errors import NotFiniteError
from onnx_subprune.graph.contractions.kernel import Kernel
from onnx_subprune.selection.linalg.ridge import Factored, Validation
from onnx_subprune.selection.problem import Problem


class Equations(Protocol):
    """A regression on some of the columns of one convolution group."""

    @property
    def energy(self) -> float:
        """Energy of the target."""

    def validated(self, other: Self, prior: Weights, strengths: Sequence[float], threads: int = 1) -> Validation:
        """Return the best of `strengths`, each fitted on one of the two and judged on the other; with 2 `threads`, side by side."""

    def rescaled(self, prior: Weights) -> Weights:
        """Return `prior` (p, m) with one factor a target, with which it fits best."""

    def ridged(self, prior: Weights, strength: float, threads: int = 1) -> Weights:
        """Return the weights (p, m) that fit best, pulled towards `prior`; `threads` may share in it."""


class Regression(Protocol):
    """The data of one contraction; g convolution groups, p columns and m targets each. Additive over disjoint data."""

    def __add__(self, other: Self) -> Self: ...

    @property
    def count(self) -> float:
        """Number of rows."""

    @property
    def columns(self) -> int:
        """How many columns, p."""

    @property
    def gram(self) -> Float64 | None:
        """The gram (g, p, p), where there is one."""

    @property
    def squares(self) -> Float64:
        """Energies of the columns about zero, (g, p): those of channels that are dead are zero, and no others."""

    def active(self, squares: Float64) -> Self:
        """Return the same where columns without energy in these rows have the energies `squares`, (g, p), elsewhere in the data."""

    @property
    def energy(self) -> Float64:
        """Column sums of the squared target, (g, m)."""

    @property
    def sum_target(self) -> Float64:
        """Column sums of the target, (g, m)."""

    def sum_output(self, weights: Weights) -> Float64:
        """Return the column sums of the input times weights (g, p, m), (g, m)."""

    def on(self, columns: Int64) -> Self:
        """Return the same on these columns alone; one convolution group."""

    def spread(self, columns: Int64, p: int) -> Self:
        """Undo `on`: return the same among `p` columns, of which all but `columns` are zero."""

    def centered(self) -> Self:
        """Return the same about the column means: the regression with a free bias."""

    def with_target(self, weights: Weights) -> Self:
        """Return the same with input times weights (g, p, m) for a target."""

    def retargeted(self, renewed: Self) -> Self:
        """Return these regressions about the means with the targets of `renewed`, moments of the same inputs that need no gram."""

    def shifted(self, offset: Float64) -> Self:
        """Return the same with the target plus `offset`, (g, m)."""

    def error(self, weights: Weights, threads: int = 1) -> float:
        """Return the relative squared error of weights (g, p, m); `threads` may share in the work."""

    def normal(self, group: int, left: Int64, factored: Factored | None = None) -> Equations:
        """Return the regression on the columns `left` of a convolution group."""

    def overlap(self, other: Self) -> tuple[float, float, float]:
        """Return <O, P>, |O|^2, |P|^2 for the off-diagonal parts O, P of the grams of both, columns scaled to the same energy in all."""

    def problem(self, columns: Int64, weights: Weights, left: Int64, shrinkage: float = 0.0) -> Problem:
        """Return the problem of choosing channels, which own `columns` of the columns `left` counted over all groups.

        weights: (g, p, m), the current ones. shrinkage: the share of the off-diagonal of the gram that is noise (`halves`). It is taken
        away, as if there were as many more rows in which columns are independent and the current weights are right: where all is noise,
        the gain of a column is the energy of its weights times its own.
        """


class Sums(Protocol):
    """What has been collected of one contraction."""

    @property
    def contraction(self) -> Kernel:
        """What it was collected of."""

    def empty(self) -> Self:
        """Return the same with nothing in it."""

    def merge(self, other: Self) -> None:
        """Add everything that was added to `other`."""

    def moments(self) -> Regression:
        """Return what was collected."""


def presence_in(squares: Float64, weights: Weights) -> Float64:
    """Return the energy that each column brings to the target through weights (g, p, m), counted over all groups, (g * p,); squares: (g, p)."""
    return np.asarray((squares * np.einsum("gpm,gpm->gp", weights, weights, dtype=np.float64)).ravel())


def check_finite(node: str, *arrays: Array) -> None:
    """Raise NotFiniteError if there is an infinity or a NaN in sums over what `node` reads or should put out: nothing fits those."""
    if not all(np.isfinite(array).all() for array in arrays):
        raise NotFiniteError(
            f"{node}: what it reads or puts out on the calibration data is infinite, not a number, or too large to be squared in float32: "
            "check that the data are prepared as the model expects, and the model's weights"
        )
