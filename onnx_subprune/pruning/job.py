"""A model to be pruned, and all that does not depend on the widths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx_subprune.allocation import Room
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.evaluation.metric import Judged
from onnx_subprune.graph.costs.costs import Costs
from onnx_subprune.graph.network import Network
from onnx_subprune.pruning.budgets.rounding import Rounding
from onnx_subprune.pruning.budgets.trials import Trials
from onnx_subprune.pruning.settings import Settings
from onnx_subprune.reconstruction.task import Task


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """A model to be pruned, and all that does not depend on the widths.

    task: without widths. rounding: what `rooms` are rounded to. price: costs at any widths. trials: what to try widths of one cost on, None for
    nothing. original: the model that was given; `network` is the same one, with heads of the groups `turned` in other bases, and in fewer `steps`: so many
    nodes that scale or shift channels are folded, and so many activations.
    model, data, described: identity of the model and of the data, and settings, for the report. chooser: the user's metric, where it chooses
    widths; judge: the same on the samples that the result is judged on. candidates: data that candidates are fitted to while a metric chooses, None
    for those of `task`.
    """

    settings: Settings
    original: Network
    network: Network
    task: Task
    rounding: Rounding
    price: Costs
    rooms: Sequence[Room]
    model: Mapping[str, str]
    data: Mapping[str, str | int]
    described: Mapping[str, str | float | int | bool | None]
    chooser: Judged | None = None
    judge: Judged | None = None
    candidates: Calibration | None = None
    trials: Trials | None = None
    turned: frozenset[str] = frozenset()
    steps: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
