"""What the walk is asked to do, what it returns, and the moments of the original model that it may begin with."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from onnx_subprune._typing import Float64
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.moments.halves import Halves
from onnx_subprune.calibration.streaming.executor import Executor
from onnx_subprune.calibration.streaming.settings import Running
from onnx_subprune.calibration.survey import LOCAL, SURVEYED, survey
from onnx_subprune.graph.channels import ChannelGraph, ChannelGroup, Contraction, Use
from onnx_subprune.graph.network import Network
from onnx_subprune.reconstruction.settings import Formulation, Refit
from onnx_subprune.runtime.progress import Watch
from onnx_subprune.selection import Choice, Forward, ProbingSelector, Problem, Refined, Selector, ranked


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
    strengths: Mapping[str, Float64] = field(default_factory=dict)
    """By group that a product of activations sums over, (w, r), what its channels bring there: see `products`."""

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
        return self.selector.path(problems, sizes, group.cells, self.running.cores)
