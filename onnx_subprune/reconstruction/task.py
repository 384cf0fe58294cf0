"""What the walk is asked to do, and the questions that it has: moments of which inputs against which targets, and how much of the data they are of."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from onnx_subprune._typing import Float64, Mask
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.moments.halves import Halves
from onnx_subprune.calibration.streaming.executor import Executor
from onnx_subprune.calibration.streaming.gates import loss_of, moments_of
from onnx_subprune.calibration.streaming.request import Request, Sampling
from onnx_subprune.calibration.streaming.settings import Running
from onnx_subprune.calibration.streaming.target import Aim
from onnx_subprune.calibration.survey import LOCAL, SURVEYED, survey
from onnx_subprune.graph.channels import ChannelGraph, ChannelGroup, Contraction, Use
from onnx_subprune.graph.contractions.kernel import Kernel
from onnx_subprune.graph.network import Network
from onnx_subprune.reconstruction.layer import Layer
from onnx_subprune.reconstruction.settings import Formulation, Refit
from onnx_subprune.runtime.progress import Watch
from onnx_subprune.selection import Backward, Choice, Forward, ProbingSelector, Problem, Refined, Selector, ranked
from onnx_subprune.selection.selector import with_all_live


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
    importance: Mapping[Use, Float64] = field(default_factory=dict)
    """By weight of a recurrent layer, (g, m), what its targets count where units are chosen: see `gate_importance`."""
    gone: frozenset[str] = frozenset()
    """Labels of nodes that nobody reads at these widths: see `gone`."""
    strengths: Mapping[str, Float64] = field(default_factory=dict)
    """By group that a product of activations sums over, (w, r), what its channels bring there: see `products`."""
    given: Network | None = None
    """The model whose time counts as the original's, where that is not `network`."""

    def survey(
        self, contractions: Sequence[Contraction], times: int = SURVEYED
    ) -> Iterator[tuple[Contraction, Halves]]:
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
            times=times if self.formulation.repairs else None,
        )

    def drafted(self) -> "Task":
        """Return the task with forward selection, where it is to be refined: that does for trials, and where many layers read a group."""
        return replace(self, selector=Forward(brief=True)) if isinstance(self.selector, Refined) else self

    def choose(self, group: ChannelGroup, problems: Sequence[Problem], sizes: Sequence[int]) -> tuple[Choice, ...]:
        """Return the selector's choices of a group's channels, one for each of `sizes`; without any, nothing is explained."""
        some = [size for size in sizes if size]
        found = dict(zip(some, self._chosen(group, problems, some), strict=True)) if some else {}
        return tuple(found[size] if size else Choice((), 1.0) for size in sizes)

    def _chosen(self, group: ChannelGroup, problems: Sequence[Problem], sizes: Sequence[int]) -> tuple[Choice, ...]:
        if isinstance(self.selector, ProbingSelector):
            return ranked(problems, self.scores[group.name], sizes, group.cells)
        found = self.selector.path(problems, sizes, group.cells, self.running.cores)
        if not isinstance(self.selector, Forward | Backward | Refined):  # others are published as they are
            return found
        return tuple(with_all_live(problems, choice, group.cells) for choice in found)


def aimed(
    task: Task,
    layer: Layer,
    aim: Aim,
    alive: Mask,
    *,
    renew: bool = False,
    with_gram: bool = True,
) -> Request:
    """Return the request for moments against the original's aim; with `renew`, against what of it the activation behind can tell apart.

    Of large maps some samples are enough.
    """
    every = every_of(task, layer.contraction, layer.weights.shape[1])
    positions = task.running.positions_of(-(-task.data.samples // every), layer.weights.shape[1])
    aim = aim.on(layer.contraction.output.index, layer.outputs)
    return Request(
        weight=layer.contraction.weight,
        kernel=layer.kernel,
        input=layer.contraction.input.tensor,
        question=moments_of(aim, renew=renew, with_gram=with_gram),
        sampling=Sampling(every=every, positions=positions),
        channels=living_channels(layer.kernel, alive),
    )


def lost(layer: Layer, aim: Aim) -> Request:
    """Return the request for what the pruned model loses of `aim` at `layer`, and how large that is, from all data."""
    contraction, aim = layer.contraction, aim.on(layer.contraction.output.index, layer.outputs)
    return Request(
        weight=contraction.weight, kernel=layer.kernel, input=contraction.input.tensor, question=loss_of(aim)
    )


def every_of(task: Task, contraction: Contraction, columns: int) -> int:
    """Return of how many samples one is enough for a contraction with so many columns a group."""
    return task.running.every_of(
        task.data.samples,
        task.graph.observation.positions(contraction.output.tensor, contraction.output.index),
        columns,
    )


def input_of(contraction: Contraction, kernel: Kernel, every: int = 1) -> Request:
    """Return the request for moments of the input alone, over all positions: layerwise selection is the paper's, and files of statistics have the same."""
    sampling = Sampling(every=every)
    return Request(weight=contraction.weight, kernel=kernel, input=contraction.input.tensor, sampling=sampling)


def output_count(kernel: Kernel, shape: Sequence[int]) -> int:
    """Return the output positions of a place on the first axis (a sample, or less), from the shape of the output."""
    return prod(shape[2:]) if kernel.spatial else prod(shape[1:-1])


def living_channels(kernel: Kernel, alive: Mask) -> NDArray[np.int64] | None:
    """Return the channels of the input that are not dropped, None for all; where there is one convolution group. One of no use if none is left."""
    if kernel.groups > 1 or alive.all():
        return None
    return np.flatnonzero(alive[:: kernel.taps]) if alive.any() else np.zeros(1, np.int64)
