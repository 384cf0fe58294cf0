"""Sharded collection, and pruning from what was collected: the layerwise formulation, without any data at hand."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from threadpoolctl import threadpool_limits

from onnx_subprune.allocation import Channels, Macs, MarginalCost, Params, Room, block_aware
from onnx_subprune.allocation.widths import GroupSensitivity
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.files import Recorded, StatisticsFile
from onnx_subprune.calibration.streaming.settings import Running
from onnx_subprune.errors import OptionError, typed
from onnx_subprune.graph.costs.costs import costs
from onnx_subprune.graph.feeds import example_of
from onnx_subprune.graph.formats import Model, identity
from onnx_subprune.graph.network import load
from onnx_subprune.graph.rules import RULES
from onnx_subprune.graph.rules.vocabulary import Rule
from onnx_subprune.graph.tracing.branches import dispensable
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.arguments import (
    AllocatorLike,
    BudgetLike,
    Patterns,
    RefitLike,
    SelectorLike,
    allocator_of,
    budget_of,
    patterns_of,
    refit_of,
    selector_of,
)
from onnx_subprune.pruning.budgets.halved_trials import TRIED, Widths, trial_widths, tried_out, without_loss
from onnx_subprune.pruning.budgets.ladder import Allocated, Ladder, filled_up
from onnx_subprune.pruning.budgets.rounding import RoundTo
from onnx_subprune.pruning.cut import Measured, cut
from onnx_subprune.pruning.domains import unseen
from onnx_subprune.pruning.eligibility import restricted
from onnx_subprune.pruning.job import Job
from onnx_subprune.pruning.preparation import loading_notes
from onnx_subprune.pruning.resources import Resources, memory_of
from onnx_subprune.pruning.result import Pruned
from onnx_subprune.pruning.settings import Settings
from onnx_subprune.pruning.summary import summarize
from onnx_subprune.reconstruction.reconstruct import reconstruct
from onnx_subprune.reconstruction.settings import Layerwise, Refit
from onnx_subprune.reconstruction.task import Task
from onnx_subprune.runtime.progress import Watch, silent
from onnx_subprune.selection import ProbingSelector, Refined

NOTES = (
    "pruned from moments of the original model: the layerwise formulation; widths from the errors of each layer alone",
    "fidelity and latency were not measured: there are no data; `compare` measures them",
)


@typed("statistics", "round_to", "target", "min_width", "rules", "resources", "progress")
def prune_collected(  # noqa: PLR0913 - the interface's signature
    model: Model,
    statistics: str | os.PathLike[str],
    *,
    budget: BudgetLike = Macs(0.5),
    selector: SelectorLike = Refined(),
    allocator: AllocatorLike = MarginalCost(),
    exclude: Patterns = (),
    only: Patterns = (),
    round_to: RoundTo = "auto",
    target: str | None = None,
    min_width: int | None = None,
    refit: RefitLike = Refit(),
    rules: Mapping[str, Rule] = RULES,
    resources: Resources = Resources(),
    progress: Watch = silent,
) -> Pruned:
    """Make `model` smaller, so that it meets `budget` and each layer's outputs on the data of `statistics` change little.

    No data are needed: the result is verified on made-up inputs, and its fidelity is not measured.

    Parameters
    ----------
    model
        The path of an .onnx file, its bytes, an `onnx.ModelProto` or an `onnx_ir.Model`.
    statistics
        The file of all shards, from `collect` or `merge`.
    budget, selector, allocator, exclude, only, round_to, target, min_width, refit, rules, resources, progress
        As in `prune`, without what runs the model on data.

    Returns
    -------
    The smaller model with a report on it.

    Raises
    ------
    SubpruneError
        As `prune`.

    Examples
    --------
    >>> from onnx_subprune import collect, prune_collected
    >>> collect("model.onnx", "calibration.npz", "moments.npz")
    >>> prune_collected("model.onnx", "moments.npz", budget=0.5).report.macs.ratio <= 0.5
    True

    """
    start = time.perf_counter()
    settings = Settings(
        budget=budget_of(budget),
        formulation=Layerwise(),
        selector=selector_of(selector),
        allocator=allocator_of(allocator),
        exclude=patterns_of("exclude", exclude),
        only=patterns_of("only", only),
        round_to=round_to,
        target=target,
        min_width=min_width,
        refit=refit_of(refit),
        rules=rules,
        resources=resources,
        progress=progress,
    )
    _runs_nothing(settings)
    with StatisticsFile(Path(statistics)) as file, threadpool_limits(1):
        job = prepare_from_moments(model, file, settings)
        traced = time.perf_counter()
        found = _allocated(job)
        settled = time.perf_counter()
        done = reconstruct(replace(job.task, widths=found.widths))
    rebuilt = time.perf_counter()
    smaller = cut(job, done, job.task.data)
    end = time.perf_counter()
    seconds = {"trace": traced - start, "sensitivity": settled - traced, **done.seconds}
    job = replace(
        job, described={**job.described, "statistics": str(statistics)}, warnings=(*job.warnings, *unseen(job, done))
    )
    return summarize(job, found, done, smaller, Measured(), {**seconds, "verify": end - rebuilt, "total": end - start})


def _runs_nothing(settings: Settings) -> None:
    """Raise OptionError if the settings need models that run on data."""
    selector, budget = settings.selector, settings.budget
    if isinstance(selector, ProbingSelector):
        raise OptionError(f"{type(selector).__name__} runs the model on data: give --data instead of --statistics")
    if not isinstance(budget, (Macs, Params, Channels)):
        raise OptionError(f"{type(budget).__name__} needs models that run on data: give --data instead of --statistics")
    if settings.resources.providers:
        raise OptionError("--providers: with --statistics nothing is run on data; give it to `collect`")
    if settings.resources.trials or settings.resources.shifts:
        raise OptionError("--trials and --shifts run the model on data: give --data instead of --statistics")


def prepare_from_moments(model: Model, file: StatisticsFile, settings: Settings) -> Job:
    """Load, trace and price `model`, whose moments are in `file`; the model runs on made-up inputs only."""
    network = load(model)
    about = identity(model)
    executor = Recorded.open(file, network, about["path"])
    graph = restricted(
        trace(network, rules=settings.rules, example=example_of(network, file.header.settings.shapes)),
        network,
        only=settings.only,
        exclude=settings.exclude,
        products=False,
    )
    runs = {name: array[None] for name, array in graph.observation.example.feeds.items()}
    task = Task(
        network=network,
        graph=graph,
        data=Calibration(arrays=runs, chunk=1, runs=True),
        widths={},
        formulation=settings.formulation,
        selector=settings.selector,
        refit=settings.refit,
        running=Running(batch_size=settings.resources.batch_size, threads=settings.resources.threads),
        memory=memory_of(settings.resources),
        watch=settings.progress,
        clock=time.perf_counter,
        executor=executor,
    )
    rounding, free = settings.rounding_for(network, graph), dispensable(network, graph)
    return Job(
        settings=settings,
        original=network,
        network=network,
        task=task,
        rounding=rounding,
        price=costs(network, graph, block=rounding.block, refitted=settings.refit is not None),
        rooms=rounding.rooms(graph, min_width=settings.least, dispensable=free),
        model=about,
        data={"samples": file.header.settings.samples, "sha256": file.header.data},
        described={**settings.to_dict(), "round_to": rounding.name},
        notes=(*NOTES, *loading_notes(network)),
    )


def error_curves(task: Task, rooms: Sequence[Room]) -> dict[str, GroupSensitivity]:
    """Return, for every group, the held-out error of its consumers at each width: what stands in for the error of the output."""
    found = {}
    for done, room in enumerate(rooms):
        group = task.graph.group(room.name)
        moments = {item.weight: halves for item, halves in task.survey([c.contraction for c in group.consumers])}
        wanted = Widths(trial_widths(room, TRIED), trial_widths(room), room.choices)
        trial = tried_out(task, group, wanted, moments)
        errors = [trial.fitted(width)[1] for width in trial.tried]
        curve = without_loss(trial.consumers(errors), trial.lossless)
        found[room.name] = GroupSensitivity(name=room.name, output=curve, consumers=curve, lossless=trial.lossless)
        task.watch("error curves", done + 1, len(rooms))
    return found


def _allocated(job: Job) -> Allocated:
    """Return the widths that meet the budget, from the errors of each layer alone."""
    settings, budget, price = job.settings, job.settings.budget, job.price
    if isinstance(budget, Channels):
        return Allocated(widths=job.rounding.shared(job.task.graph, job.rooms, budget.fraction)[1])
    assert isinstance(budget, (Macs, Params)), "others are refused at the door"
    sensitivity = error_curves(job.task, job.rooms)
    curves = {name: item.output for name, item in sensitivity.items()}
    shown = sensitivity if isinstance(settings.allocator, MarginalCost) else {}
    by_macs = isinstance(budget, Macs)
    allocator = (
        block_aware(settings.allocator, price.work, job.rounding.block, price.folded) if by_macs else settings.allocator
    )
    cost = price.macs if by_macs else price.params
    lossless = {name: item.lossless for name, item in sensitivity.items() if item.lossless is not None}
    ladder = Ladder(rooms=job.rooms, curves=curves, cost=cost, allocator=allocator, lossless=lossless)
    ladder = ladder.losing_nothing(job.rounding, job.task.graph, budget.fraction)
    finer = (kind.again(job.task.graph, job.rooms) for kind in job.rounding.padded)
    return Allocated(widths=filled_up(ladder, budget.fraction, finer).widths(budget.fraction), sensitivity=shown)
