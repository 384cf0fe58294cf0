"""What the walk is asked to do, what it returns, and the moments of the original model that it may begin with."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.calibration.ask import Ask
from onnx_subprune.calibration.kernel import Kernel
from onnx_subprune.calibration.lockstep import Executor, Local, united
from onnx_subprune.calibration.regression import Regression
from onnx_subprune.calibration.running import Running
from onnx_subprune.data import Calibration
from onnx_subprune.graph.channels import ChannelGraph, ChannelGroup, Contraction, Use
from onnx_subprune.graph.model import Network
from onnx_subprune.selection import Backward, Choice, Forward, ProbingSelector, Problem, Refined, Selector, ranked
from onnx_subprune.selection.ridge import Weights

Array = NDArray[np.generic]
Float64 = NDArray[np.float64]


LOCAL = Local()
SURVEYED = 4
"""A survey for the widths draws so many times the positions of the walk: what is allocated decides for the whole model."""


@dataclass(frozen=True, slots=True)
class Asymmetric:
    """Inputs of the pruned model, targets of the original: later layers repair the errors of earlier ones."""


@dataclass(frozen=True, slots=True)
class Sequential:
    """Inputs of the pruned model; targets are what the old weights make of those."""


@dataclass(frozen=True, slots=True)
class Layerwise:
    """Inputs and targets of the original model: every layer by itself."""


Formulation = Asymmetric | Sequential | Layerwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Refit:
    """How layers are refitted.

    residual: aim at the sum that the output runs into. everywhere: refit every contraction behind a change, not only those that lost
    inputs. rounds: how often the target is renewed with what the activation behind cannot tell apart. joint: how many steps a layer takes at most
    together with the only reader of its output; three times as many where it is dense.
    """

    residual: bool = True
    everywhere: bool = True
    rounds: int = 1
    joint: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Refitted:
    """What became of one contraction."""

    node: str
    fitted_error: float
    heldout_error: float
    plain_error: float
    refitted: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reconstruction:
    """Supports and error of each pruned group, new weights, and how every touched contraction did."""

    choices: Mapping[str, Choice]
    weights: Mapping[Use, Array]
    refits: tuple[Refitted, ...]
    seconds: Mapping[str, float]


class Watch(Protocol):
    """Is told of progress: steps done, of how many, and what at."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report one step."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """All that the walk needs to know. `widths` names the groups that get narrower; `refit` None leaves weights as they are."""

    network: Network
    graph: ChannelGraph
    data: Calibration
    widths: Mapping[str, int]
    formulation: Formulation
    selector: Selector | ProbingSelector
    refit: Refit | None
    running: Running
    memory: int
    watch: Watch
    clock: Callable[[], float]
    choices: Mapping[str, Choice] = field(default_factory=dict)
    """Groups whose channels are chosen already."""
    executor: Executor = LOCAL
    """Where the models run."""
    scores: Mapping[str, Float64] = field(default_factory=dict)
    """By group, (w,), what a selector that runs the model says of its channels: see `probing`."""

    def survey(
        self, contractions: Sequence[Contraction], times: int = SURVEYED
    ) -> Iterator[tuple[Contraction, Regression]]:
        """Yield the moments of the original model at each of `contractions`.

        They are of drawn positions where those of the walk are, so many times as many.
        """
        return survey(
            self.network,
            contractions,
            self.data,
            self.running,
            self.memory,
            self.executor,
            times=times if isinstance(self.formulation, Asymmetric) else None,
        )

    def drafted(self) -> "Task":
        """Return the task with forward selection, where it is to be refined: that does for trials, and where many layers read a group."""
        return replace(self, selector=Forward()) if isinstance(self.selector, Refined) else self

    def choose(self, group: ChannelGroup, problems: Sequence[Problem], sizes: Sequence[int]) -> tuple[Choice, ...]:
        """Return the selector's choices of a group's channels, one for each of `sizes`; without any, nothing is explained."""
        some = [size for size in sizes if size]
        found = dict(zip(some, self._chosen(group, problems, some), strict=True)) if some else {}
        return tuple(found[size] if size else Choice((), 1.0) for size in sizes)

    def _chosen(self, group: ChannelGroup, problems: Sequence[Problem], sizes: Sequence[int]) -> tuple[Choice, ...]:
        if isinstance(self.selector, ProbingSelector):
            return ranked(problems, self.scores[group.name], sizes, group.cells)
        selector = self.selector
        if isinstance(selector, Refined | Forward | Backward):
            selector = replace(selector, threads=self.running.cores)
        return selector.path(problems, sizes, group.cells)


def kernel_of(network: Network, contraction: Contraction) -> tuple[Kernel, Weights]:
    """Return the kernel of a contraction and its weights as a matrix (g, p, m)."""
    weight = network.array(contraction.weight_tensor)
    kernel = Kernel.from_node(network.node(contraction.node), weight.shape, contraction.weight.slot)
    return kernel, kernel.to_matrix(weight)


def survey(
    network: Network,
    contractions: Sequence[Contraction],
    data: Calibration,
    running: Running,
    memory: int,
    executor: Executor = LOCAL,
    *,
    times: int | None = None,
) -> Iterator[tuple[Contraction, Regression]]:
    """Yield the moments of the original model at each of `contractions`, in topological order; the target is input times weights.

    times: of drawn output positions, so many times as many as `running` says; None for all.
    """
    with executor.begin(network, data, running, memory, original=None) as run:
        for contraction in sorted(contractions, key=lambda item: network.position[item.node]):
            run.advance(network.position[contraction.node])
            kernel, weights = kernel_of(network, contraction)
            positions = times * running.positions_of(data.samples, weights.shape[1]) if times else None
            ask = Ask(node=contraction.node, kernel=kernel, input=contraction.input.tensor, positions=positions)
            yield contraction, united(run.collect(ask)).moments().with_target(weights)
