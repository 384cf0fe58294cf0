"""What the written model has: parameters and multiply-accumulates, counted in it, and whether that meets the budget."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnx_subprune.allocation import Macs, Params, Room
from onnx_subprune.errors import BudgetError
from onnx_subprune.graph.costs.costs import Costs
from onnx_subprune.graph.costs.count import multiply_accumulates, parameters
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.observation import Observation
from onnx_subprune.runtime.observing import observe_shapes

ROUNDING = 1e-9
"""Relative; costs are sums of floating-point numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Parameters of a model, and multiply-accumulates of a sample."""

    params: int
    macs: float


def counted(network: Network, observation: Observation) -> Count:
    """Return the costs of `network`, which is run once on the inputs that `observation` is of; another model with the same inputs was observed."""
    seen = observe_shapes(network.proto, observation.example.feeds, network.folder)
    shapes = {name: item.shape for name, item in seen.items()}
    values = {name: item.value for name, item in seen.items() if item.value is not None}
    return Count(
        params=parameters(network),
        macs=multiply_accumulates(network, replace(observation, shapes=shapes, values=values)),
    )


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
