"""One run of a model on data, with and without its contents."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Feeds = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """An `Example` without its contents. sizes: of each input, in that run."""

    sizes: Mapping[str, tuple[int, ...]]
    samples: int
    stacked: tuple[str, ...]
    free: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Example:
    """One run on the data.

    feeds: of that run. samples: how many there are in it. stacked: inputs whose first axis counts them. free: the model takes any number.
    constant: inputs that have this value in every run.
    """

    feeds: Feeds
    samples: int
    stacked: frozenset[str]
    free: bool
    constant: frozenset[str] = frozenset()

    def first(self, samples: int) -> "Example":
        """Return a run on the first samples alone."""
        return self._cut(slice(samples), samples)

    @property
    def shapes(self) -> Shapes:
        """What is left of it without its contents."""
        return Shapes(
            sizes={name: array.shape for name, array in self.feeds.items()},
            samples=self.samples,
            stacked=tuple(sorted(self.stacked)),
            free=self.free,
        )

    def second(self) -> "Example":
        """Return a run on the second sample alone."""
        return self._cut(slice(1, 2), 1)

    def _cut(self, part: slice, samples: int) -> "Example":
        cut = {name: array[part] if name in self.stacked else array for name, array in self.feeds.items()}
        return replace(self, feeds=cut, samples=samples)
