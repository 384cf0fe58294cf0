"""What was collected of a contraction on each half of the samples: what is fitted on one half is judged on the other.

Samples that say the same, as an image and its moved copies or the tokens of a sentence, lie in the same half.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from onnx_subprune._typing import Weights
from onnx_subprune.calibration.moments.regression import Regression, Sums
from onnx_subprune.runtime.threads import alongside


@dataclass(frozen=True, slots=True, eq=False)
class Collected:
    """Sums over the even and over the odd chunks; over all, if there is only one chunk. residuals: what a reader puts out wrong there, if that was asked."""

    halves: tuple[Sums, ...]
    residuals: tuple[Sums, ...] = ()

    def moments(self, threads: int = 1) -> "Halves":
        """Return the moments of each half, side by side with 2 or more `threads`."""
        return Halves.of([*alongside(lambda half: half.moments(), ((half,) for half in self.halves), threads)])

    def whole(self) -> Regression:
        """Return the moments of all chunks, which the first half becomes."""
        for half in self.halves[1:]:
            self.halves[0].merge(half)
        return self.halves[0].moments()

    def joined(self, other: "Collected") -> "Collected":
        """Return the sums over both, half by half, anew."""
        pairs = ((self.halves, other.halves), (self.residuals, other.residuals))
        return Collected(*(tuple(map(_sum, *pair)) for pair in pairs))


def _sum(one: Sums, other: Sums) -> Sums:
    total = one.empty()
    total.merge(one)
    total.merge(other)
    return total


@dataclass(frozen=True, eq=False)
class Halves:
    """The regressions on the even and on the odd chunks; on all, if there is only one chunk."""

    parts: tuple[Regression, ...]

    @classmethod
    def of(cls, parts: Sequence[Regression]) -> "Halves":
        """Return the halves `parts`."""
        return cls(tuple(parts))

    @cached_property
    def whole(self) -> Regression:
        """The regression on all samples."""
        return self.parts[0] + self.parts[1] if len(self.parts) == 2 else self.parts[0]

    @cached_property
    def centered(self) -> tuple[Regression, ...]:
        """The halves about their means."""
        return tuple(part.centered() for part in self.parts)

    @cached_property
    def shrinkage(self) -> float:
        """How much of the off-diagonal of the whole gram is noise, 0 to 1; see `shrinkage_of`."""
        return shrinkage_of([part.centered() for part in self.parts])

    @property
    def count(self) -> float:
        """Number of rows."""
        return sum(part.count for part in self.parts)

    def map(self, change: Callable[[Regression], Regression]) -> "Halves":
        """Return the halves that `change` makes of these."""
        return Halves(tuple(change(part) for part in self.parts))

    def with_target(self, weights: Weights) -> "Halves":
        """Return the halves with input times weights (g, p, m) for a target."""
        return self.map(lambda part: part.with_target(weights))

    def about(self, *, free_bias: bool) -> Regression:
        """Return the regression on all samples, with a free bias or about zero."""
        return self.whole.centered() if free_bias else self.whole

    @property
    def shrinkage_of_half(self) -> float:
        """How much of that of a half is noise: twice as much for each part of what is not."""
        share = shrinkage_of(self.centered)
        return 2.0 * share / (1.0 + share) if len(self.parts) == 2 else share


def shrinkage_of(parts: Sequence[Regression]) -> float:
    """Return the share of the off-diagonal correlations, all samples together, that is noise of the sampling: 0 to 1.

    With O1, O2 the correlations in the halves, <O1, O2> estimates the energy of the true ones and what |O1|^2, |O2|^2 have beyond that is the noise
    of a half; the whole has half of it. So (1 - share) O is nearest to the truth (Ledoit and Wolf 2004, with halves in place of fourth moments:
    rows of one sample need not be independent). One half alone: as many unknowns as columns, as many knowns as rows.
    """
    if len(parts) < 2:
        return parts[0].columns / (parts[0].columns + parts[0].count)
    shared, first, second = parts[0].overlap(parts[1])
    if first + second <= 0.0:
        return 0.0
    noise = max(0.0, (first + second) / 2.0 - shared) / 2.0
    return 1.0 if shared <= 0.0 else noise / (shared + noise)
