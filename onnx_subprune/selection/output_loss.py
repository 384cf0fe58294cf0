"""Criteria that run the model: what its output loses when channels of one group are gated, nothing refitted.

A *probe* maps gate vectors g (r, w) to losses L(g) (r,): the divergence of the model's output from the original one's, without labels, when
channel i of the group is multiplied by g_i. Where the literature has the cross-entropy against the labels, this stands. Every criterion turns
the probe of a group into one score a channel; the channels with the highest scores stay, so that supports are nested over the widths.

On images that the model was trained on, the divergence comes from the few on which the model is not certain, and few samples are easily
overfitted: more `samples` choose better, and every run costs as much more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from onnx_subprune._typing import Float64, Int64
from onnx_subprune.errors import at_least, typed_fields
from onnx_subprune.selection.selector import level, pick


class Probe(Protocol):
    """The loss of the model's output as a function of gates on the w channels of one group."""

    def __call__(self, gates: Float64) -> Float64:
        """Return the losses (r,) of `gates` (r, w); one run of what lies behind the group a row."""


@runtime_checkable
class ProbingSelector(Protocol):
    """Ranks the channels of one group by what the model's output feels."""

    @property
    def samples(self) -> int:
        """Return how many calibration samples a probe runs."""

    def scores(self, probe: Probe, cells: Int64, size: int) -> Float64:
        """Return a score a channel, (w,): of each cell the highest stay. At most `size` channels will be asked for."""


@typed_fields
@dataclass(frozen=True, slots=True)
class Taylor:
    """Importance from the second difference L(g_i = 1 - d) / d^2 (after Molchanov et al., CVPR 2019): w runs a group.

    Their first-order term vanishes here: the divergence from the original has its minimum, zero, at the original.
    """

    step: float = 0.1
    samples: int = 64

    def __post_init__(self) -> None:
        at_least(1, samples=self.samples)

    def scores(self, probe: Probe, cells: Int64, size: int) -> Float64:
        """See `ProbingSelector`."""
        return probe(1.0 - self.step * np.eye(len(cells))) / self.step**2


@typed_fields
@dataclass(frozen=True, slots=True)
class LayerGreedyFS:
    """From no channels at all, add the one that lowers the loss most, and again (Ye et al., ICML 2020).

    Each step tries every channel that is left: size * (2 w - size + 1) / 2 runs a group, 1,552 for 32 of 64 channels, 130,000 for a
    full path of 512. All runs share the first `samples` samples. Ties go to the lowest channel.
    """

    samples: int = 64

    def __post_init__(self) -> None:
        at_least(1, samples=self.samples)

    def scores(self, probe: Probe, cells: Int64, size: int) -> Float64:
        """See `ProbingSelector`."""
        width = len(cells)
        chosen = np.zeros(width, bool)
        scores = np.zeros(width)
        for step in range(size):
            allowed = level(cells, chosen)
            trials = np.flatnonzero(allowed)
            losses = np.zeros(width)
            losses[trials] = probe(_with(chosen, trials))
            best = pick(losses, allowed, largest=False)
            chosen[best] = True
            scores[best] = width - step
        return scores


@typed_fields
@dataclass(frozen=True, slots=True)
class Shapley:
    """Mean increase of the loss as channels go one after the other, over random orders (Ancona et al., CVPR 2020).

    permutations * w + 1 runs a group. The scores sum to what it costs to remove all channels.
    """

    seed: int = 0
    permutations: int = 5
    samples: int = 64

    def __post_init__(self) -> None:
        at_least(0, seed=self.seed)
        at_least(1, permutations=self.permutations, samples=self.samples)

    def scores(self, probe: Probe, cells: Int64, size: int) -> Float64:
        """See `ProbingSelector`."""
        width, generator = len(cells), np.random.default_rng(self.seed)
        orders = [generator.permutation(width) for _ in range(self.permutations)]
        start = float(probe(np.ones((1, width)))[0])
        total = np.zeros(width)
        for order in orders:
            places = np.argsort(order)
            gates = (places[None, :] > np.arange(width)[:, None]).astype(np.float64)  # row t: the first t + 1 are gone
            total[order] += np.diff(probe(gates), prepend=start)
        return total / self.permutations


def _with(chosen: np.ndarray, trials: Sequence[int] | Int64) -> Float64:
    """Gates (r, w): those chosen, and one of the trials a row."""
    gates = np.tile(chosen.astype(np.float64), (len(trials), 1))
    gates[np.arange(len(trials)), trials] = 1.0
    return gates
