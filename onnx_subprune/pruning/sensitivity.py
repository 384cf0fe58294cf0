"""How sensitive the outputs are to the width of each group."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from threadpoolctl import threadpool_limits

from onnx_subprune.allocation import Macs, MarginalCost
from onnx_subprune.allocation.widths import GroupSensitivity
from onnx_subprune.calibration.data.constants import Constant
from onnx_subprune.calibration.data.sources import Source
from onnx_subprune.errors import typed
from onnx_subprune.graph.formats import Model
from onnx_subprune.graph.rules import RULES
from onnx_subprune.graph.rules.vocabulary import Rule
from onnx_subprune.pruning.arguments import SelectorLike, selector_of
from onnx_subprune.pruning.budgets.sensitivity import sensitivities
from onnx_subprune.pruning.channel_scores import scored
from onnx_subprune.pruning.preparation import prepare
from onnx_subprune.pruning.resources import Resources
from onnx_subprune.pruning.settings import Settings
from onnx_subprune.reconstruction.settings import Asymmetric, Refit
from onnx_subprune.runtime.progress import Watch, silent
from onnx_subprune.selection import Refined


@typed("rules", "resources", "progress", "constants")
def sensitivity(
    model: Model,
    data: Source,
    *,
    selector: SelectorLike = Refined(),
    rules: Mapping[str, Rule] = RULES,
    resources: Resources = Resources(),
    progress: Watch = silent,
    constants: Mapping[str, Constant] = MappingProxyType({}),
) -> tuple[GroupSensitivity, ...]:
    """Return how far the outputs of `model` move on `data` when one group alone gets narrower, its consumers refitted.

    Parameters
    ----------
    model, data, selector, rules, resources, progress, constants
        As in `prune`.

    Returns
    -------
    For each group the errors at some of its widths: `output` is a curve of `widths` and `errors`, shares of what the outputs vary.

    Raises
    ------
    SubpruneError
        As `prune`.

    Examples
    --------
    >>> from onnx_subprune import sensitivity
    >>> found = sensitivity("model.onnx", "calibration.npz")
    >>> [(item.name, item.output.widths[0]) for item in found]
    [('conv1', 1), ('conv2', 2)]

    """
    settings = Settings(
        budget=Macs(0.5),
        formulation=Asymmetric(),
        selector=selector_of(selector),
        allocator=MarginalCost(),
        exclude=(),
        only=(),
        round_to=1,
        target=None,
        min_width=1,
        refit=Refit(),
        rules=rules,
        resources=replace(resources, holdout=0, trials=0),
        progress=progress,
        constants=constants,
    )
    job, _ = prepare(model, data, settings)
    with threadpool_limits(1):
        found = sensitivities(scored(job.task, job.rooms, 1.0), job.rooms)
    return tuple(found[group.name] for group in job.task.graph.groups)
