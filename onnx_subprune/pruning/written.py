"""What the written model has: parameters and multiply-accumulates, counted in it, and whether that meets the budget."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnx_subprune.allocation import Macs, Params, Room
from onnx_subprune.errors import BudgetError
from onnx_subprune.evaluation.report.values import Resized
from onnx_subprune.graph.channels import ChannelGraph
from onnx_subprune.graph.composites import Composite, composites
from onnx_subprune.graph.costs.costs import Costs
from onnx_subprune.graph.costs.count import multiply_accumulates, parameters
from onnx_subprune.graph.network import Network
from onnx_subprune.runtime.observing import observe_shapes

ROUNDING = 1e-9
"""Relative; costs are sums of floating-point numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Parameters of a model, multiply-accumulates of a sample, and its attention and recurrent layers."""

    params: int
    macs: float
    composites: tuple[Composite, ...] = ()


def counted(network: Network, graph: ChannelGraph) -> Count:
    """Return what `network` has, which is run once on the inputs that `graph` was observed on; that may be of another model with the same inputs."""
    observation = graph.observation
    seen = observe_shapes(network.proto, observation.example.feeds, network.folder)
    shapes = {name: item.shape for name, item in seen.items()}
    values = {name: item.value for name, item in seen.items() if item.value is not None}
    found = replace(observation, shapes=shapes, values=values)
    return Count(
        params=parameters(network),
        macs=multiply_accumulates(network, found),
        composites=composites(network, replace(graph, observation=found)),
    )


def resized(before: Count, after: Count) -> tuple[Resized, ...]:
    """Return the attention and the recurrent layers of a model with their sizes before and after."""
    left = {item.node: item.size for item in after.composites}
    return tuple(Resized(item.node, item.kind, item.size, left.get(item.node, "gone")) for item in before.composites)


def check_budget(budget: object, before: Count, after: Count, rooms: Sequence[Room], price: Costs) -> None:
    """Raise BudgetError if the model that is about to be written misses a budget of parameters or multiply-accumulates."""
    if not isinstance(budget, (Macs, Params)):
        return
    ratio = after.macs / before.macs if isinstance(budget, Macs) else after.params / before.params
    if ratio > budget.fraction * (1.0 + ROUNDING):
        cost = price.macs if isinstance(budget, Macs) else price.params
        least = cost({room.name: room.choices[0] for room in rooms}) / cost({})
        raise BudgetError(
            f"the pruned model has {ratio:.4g} of the {'multiply-accumulates' if isinstance(budget, Macs) else 'parameters'}, not the "
            f"{budget.fraction:.4g} that was asked for: nothing was written; the least is {least:.4g}; please report this model"
        )
