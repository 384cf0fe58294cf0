"""What is known before any layer is pruned: the traced model, its costs, the data and who judges."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from onnx_subprune.allocation import Room
from onnx_subprune.calibration.data.masks import mask_of
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.data.shifts import augmented
from onnx_subprune.calibration.data.sources import Source
from onnx_subprune.evaluation.metric import Judged, judge_of
from onnx_subprune.graph.cost import Costs, costs
from onnx_subprune.graph.network import Model, Network, identity, load
from onnx_subprune.graph.tracing.branches import dispensable
from onnx_subprune.pruning.budgets.trials import Trials, trials_of
from onnx_subprune.pruning.eligibility import restricted
from onnx_subprune.pruning.opening import opened
from onnx_subprune.pruning.resources import memory_of, running_of
from onnx_subprune.pruning.rounding import Rounding
from onnx_subprune.pruning.settings import Settings
from onnx_subprune.reconstruction.task import Task


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples:
    """The data: `used` of them are calibrated on, `fitted` are these with moved copies where there are any; `rest` are those left over."""

    used: Calibration
    fitted: Calibration
    rest: Calibration | None

    @property
    def shifts(self) -> bool:
        """True if there are moved copies."""
        return self.fitted.samples > self.used.samples


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """A model to be pruned, and all that does not depend on the widths.

    task: without widths. rounding: what `rooms` are rounded to. price: costs at any widths. trials: what to try widths of one cost on, None
    for nothing. told: identity of the model, data and settings for the report.
    """

    settings: Settings
    network: Network
    task: Task
    rounding: Rounding
    price: Costs
    rooms: Sequence[Room]
    model: Mapping[str, str]
    data: Mapping[str, str | int]
    told: Mapping[str, str | float | int | bool | None]
    judged: Judged | None = None
    trials: Trials | None = None
    notes: tuple[str, ...] = field(default=())


def prepare(model: Model, data: Source, settings: Settings) -> tuple[Job, Samples]:
    """Load, trace and price `model`, and open `data`. Raises ModelError, DataError and OptionError where these do not fit."""
    triable = settings.triable
    resources = settings.resources
    network = load(model)
    given = opened(
        network,
        data,
        samples=resources.samples,
        memory=resources.memory,
        constants=settings.constants,
        rules=settings.rules,
    )
    used, rest, whole = given.calibration, given.rest, given.graph
    macs = costs(network, whole).macs({})
    fitted = augmented(used, network, whole, macs, shifts=resources.shifts)
    samples = Samples(used=used, fitted=fitted, rest=rest)

    def with_copies(some: Calibration) -> Calibration:
        return augmented(some, network, whole, macs, shifts=samples.shifts)

    graph = restricted(whole, network, only=settings.only, exclude=settings.exclude, samples=fitted.samples)
    rounding = settings.rounding_for(network, graph)
    rooms = rounding.rooms(graph, min_width=settings.least, dispensable=dispensable(network, graph))
    mask = mask_of(network, fitted, resources.mask)
    task = Task(
        network=network,
        graph=graph,
        data=fitted,
        widths={},
        formulation=settings.formulation,
        selector=settings.selector,
        refit=settings.refit,
        running=replace(running_of(resources, whole.observation), mask=mask),
        memory=memory_of(resources),
        watch=settings.progress,
        clock=time.perf_counter,
        executor=settings.executor,
    )
    job = Job(
        settings=settings,
        network=network,
        task=task,
        rounding=rounding,
        price=costs(network, graph, block=rounding.block),
        rooms=rooms,
        model=identity(model),
        data={"samples": used.samples, "sha256": used.sha256()},
        told={**settings.to_dict(), "round_to": rounding.name, "shifts": samples.shifts, "mask": mask or ""},
        judged=_judged(network, samples, settings),
        trials=trials_of(used, macs, len(rooms), resources.trials, with_copies) if triable else None,
        notes=inlined_note(network),
    )
    return job, samples


def _judged(network: Network, samples: Samples, settings: Settings) -> Judged | None:
    """The user's metric, and what it says of the original."""
    if settings.judged_by is None:
        return None
    judge = judge_of(settings.judged_by, samples.used, samples.rest, network.folder, settings.resources.threads)
    return Judged(judge, judge(network.proto))


def inlined_note(network: Network) -> tuple[str, ...]:
    """Return what the report says of functions that are not there any more."""
    return ("local functions were inlined",) if network.inlined else ()
