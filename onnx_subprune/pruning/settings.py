"""How a model is pruned: the arguments of `prune` and `prune_collected` as one value."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnx_subprune.allocation import Allocator, Channels, Latency, Params, Threshold
from onnx_subprune.calibration.data.constants import Constant
from onnx_subprune.calibration.streaming.executor import Executor
from onnx_subprune.calibration.survey import LOCAL
from onnx_subprune.errors import OptionError
from onnx_subprune.evaluation.gates import Gates
from onnx_subprune.evaluation.metric import Metric
from onnx_subprune.graph.channels import ChannelGraph
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.rules.vocabulary import Rule
from onnx_subprune.graph.targets import PROVIDED
from onnx_subprune.graph.tracing.branches import dispensable
from onnx_subprune.pruning.budgets.budget import Budget, MaxDrop, can_be_tried
from onnx_subprune.pruning.budgets.rounding import Rounding, RoundTo, least_width, reachable, rounding_of
from onnx_subprune.pruning.resources import Resources
from onnx_subprune.reconstruction.finetuning.settings import FineTune
from onnx_subprune.reconstruction.settings import Formulation, Refit
from onnx_subprune.runtime.progress import Watch
from onnx_subprune.runtime.providers import providers_of
from onnx_subprune.selection import Backward, Forward, ProbingSelector, Refined, Selector

WIDEST = 1 << 31
"""No group is wider."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Settings:
    """What `prune` says of each of its arguments; `executor`, `metric` and `constants` are for those that have data."""

    budget: Budget
    formulation: Formulation
    selector: Selector | ProbingSelector
    allocator: Allocator
    exclude: tuple[str, ...]
    only: tuple[str, ...]
    round_to: RoundTo
    target: str | None
    min_width: int | None
    refit: Refit | None
    rules: Mapping[str, Rule]
    resources: Resources
    progress: Watch
    metric: Metric | None = None
    gates: Gates = field(default_factory=Gates)
    executor: Executor = LOCAL
    constants: Mapping[str, Constant] = field(default_factory=dict)
    finetune: FineTune | None = None

    def __post_init__(self) -> None:
        for name, value in {"--round-to": self.round_to, "--min-width": self.min_width}.items():
            if isinstance(value, int) and value > WIDEST:
                raise OptionError(f"{name} {value}: no group has so many channels")

    @property
    def least(self) -> int:
        """The least width of a group."""
        return least_width(self.min_width, for_speed=not self._rounding.plain or isinstance(self.budget, Latency))

    @property
    def _rounding(self) -> Rounding:
        size, target = isinstance(self.budget, Params), self.target
        if target is None and self.round_to == "auto" and not size:
            target = next((PROVIDED.get(item.name) for item in providers_of(self.resources.providers)), None)
        return rounding_of(self.round_to, target, size=size)

    def rounding_for(self, network: Network, graph: ChannelGraph) -> Rounding:
        """Return what widths of `graph` are rounded to, so that the budget can be reached; OptionError for a target or multiple that makes no sense."""
        return reachable(self._rounding, self.budget, network, graph, self.least, dispensable(network, graph))

    @property
    def judged_by(self) -> Metric | None:
        """What is measured before and after: `metric`, or that of the budget."""
        return self.budget.metric if self.metric is None and isinstance(self.budget, MaxDrop) else self.metric

    @property
    def chosen_by_metric(self) -> bool:
        """True if the widths are chosen by what the metric says of candidates."""
        return isinstance(self.budget, MaxDrop) or isinstance(self.allocator, Threshold)

    @property
    def free_bases(self) -> bool:
        """True if heads may be seen in other bases: selectors that are published as they are for comparison choose among the model's own channels."""
        return self.refit is not None and isinstance(self.selector, Refined | Forward | Backward)

    @property
    def probed(self) -> float:
        """The largest share of a group that a selector that runs the model must score."""
        return self.budget.fraction if isinstance(self.budget, Channels) else 1.0

    @property
    def triable(self) -> bool:
        """True if there are other widths of the same cost to try; OptionError if trials are asked for and there are none."""
        found = can_be_tried(self.budget, self.allocator)
        if self.resources.trials and not found:
            raise OptionError("--trials goes with --macs, --params or --latency, and allocation by sensitivity")
        return found

    def to_dict(self) -> dict[str, str | float | int | bool | None]:
        """Return the settings as the report has them."""
        return {
            "budget": str(self.budget),
            "formulation": type(self.formulation).__name__,
            "selector": str(self.selector),
            "allocator": str(self.allocator),
            "refit": str(self.refit),
            "metric": str(self.judged_by or ""),
            "min_width": self.least,
            "exclude": " ".join(self.exclude),
            "only": " ".join(self.only),
            "finetune": str(self.finetune or ""),
        }
