"""What selection and refit ask of a contraction's data, whatever form these have: `Moments`, or `Rows` where those are fewer numbers."""

from collections.abc import Sequence
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.calibration.kernel import Kernel
from onnx_subprune.selection import Problem, Validation
from onnx_subprune.selection.ridge import Factored, Weights

Float64 = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Equations(Protocol):
    """A regression on some of the columns of one convolution group."""

    @property
    def energy(self) -> float:
        """Energy of the target."""

    def validated(self, other: Self, prior: Weights, strengths: Sequence[float], threads: int = 1) -> Validation:
        """Return the best of `strengths`, each fitted on one of the two and judged on the other; with 2 `threads`, side by side."""

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
    def energy(self) -> Float64:
        """Column sums of the squared target, (g, m)."""

    @property
    def sum_target(self) -> Float64:
        """Column sums of the target, (g, m)."""

    def sum_output(self, weights: Weights) -> Float64:
        """Return the column sums of the input times weights (g, p, m), (g, m)."""

    def on(self, columns: IntArray) -> Self:
        """Return the same on these columns alone; one convolution group."""

    def spread(self, columns: IntArray, p: int) -> Self:
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

    def normal(self, group: int, left: IntArray, factored: Factored | None = None) -> Equations:
        """Return the regression on the columns `left` of a convolution group."""

    def problem(self, columns: IntArray, weights: Weights, left: IntArray) -> Problem:
        """Return the problem of choosing channels, which own `columns` of the columns `left` counted over all groups.

        weights: (g, p, m), the current ones.
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
