"""The whole story: prepare, allocate, walk, cut, measure, summarize."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from threadpoolctl import threadpool_limits

from onnx_subprune.allocation import Allocator, Macs, MarginalCost
from onnx_subprune.allocation.widths import GroupSensitivity
from onnx_subprune.calibration.data.constants import Constant
from onnx_subprune.calibration.data.sources import Source
from onnx_subprune.calibration.streaming.executor import Executor
from onnx_subprune.calibration.survey import LOCAL
from onnx_subprune.evaluation.gates import Gates
from onnx_subprune.evaluation.metric import Metric
from onnx_subprune.graph.network import Model
from onnx_subprune.graph.rules import RULES
from onnx_subprune.graph.rules.vocabulary import Rule
from onnx_subprune.pruning.budgets import Budget, allocated
from onnx_subprune.pruning.budgets.ladder import Allocated
from onnx_subprune.pruning.channel_scores import scored
from onnx_subprune.pruning.cut import cut, measure
from onnx_subprune.pruning.judgement import reviewed
from onnx_subprune.pruning.preparation import Job, prepare
from onnx_subprune.pruning.resources import Resources
from onnx_subprune.pruning.result import Pruned
from onnx_subprune.pruning.rounding import RoundTo
from onnx_subprune.pruning.sensitivity import sensitivities
from onnx_subprune.pruning.settings import Settings
from onnx_subprune.pruning.summary import summarize
from onnx_subprune.reconstruction.reconstruct import reconstruct
from onnx_subprune.reconstruction.settings import Asymmetric, Formulation, Refit
from onnx_subprune.runtime.progress import Watch, silent
from onnx_subprune.selection import ProbingSelector, Refined, Selector


def prune(  # noqa: PLR0913 - the interface's signature
    model: Model,
    data: Source,
    *,
    budget: Budget = Macs(0.5),
    formulation: Formulation = Asymmetric(),
    selector: Selector | ProbingSelector = Refined(),
    allocator: Allocator = MarginalCost(),
    exclude: Sequence[str] = (),
    only: Sequence[str] = (),
    round_to: RoundTo = "auto",
    target: str | None = None,
    min_width: int | None = None,
    refit: Refit | None = Refit(),
    metric: Metric | None = None,
    gates: Gates = Gates(),
    rules: Mapping[str, Rule] = RULES,
    resources: Resources = Resources(),
    progress: Watch = silent,
    executor: Executor = LOCAL,
    constants: Mapping[str, Constant] = MappingProxyType({}),
) -> Pruned:
    """Make `model` smaller, so that it meets `budget` and its outputs on `data` change as little as possible.

    exclude, only: patterns (globs) of node, group or weight names, or "op:Conv". round_to: widths are multiples of this; groups that have no
    smaller one take its halves (`Room`), and MarginalCost keeps the work of kernels with blocks of so many channels near the budget of
    multiply-accumulates too (`BlockAware`). "auto": of what `target` (a name in `graph.targets`; None: this machine) likes; with a budget of
    parameters and no target any width. min_width: no group gets narrower; at 0, the default with rounded widths or a budget of latency, whole
    residual branches may go. refit: None keeps the weights as they are.
    metric: measured before and after (by default that of the budget). gates: how close to the original the result must be. executor: where the
    models run: here, or on a cluster. constants: inputs that are the same for all samples, by name, with their values. Nothing passed in is changed.
    Raises SubpruneError and its kinds.
    """
    start = time.perf_counter()
    settings = Settings(
        budget=budget,
        formulation=formulation,
        selector=selector,
        allocator=allocator,
        exclude=tuple(exclude),
        only=tuple(only),
        round_to=round_to,
        target=target,
        min_width=min_width,
        refit=refit,
        metric=metric,
        gates=gates,
        rules=rules,
        resources=resources,
        progress=progress,
        constants=constants,
        executor=executor,
    )
    job, samples = prepare(model, data, settings)
    traced = time.perf_counter()
    with threadpool_limits(1):
        job = replace(job, task=scored(job.task, job.rooms, settings.probed))
        found = meet(job)
        settled = time.perf_counter()
        done = found.done or reconstruct(replace(job.task, widths=found.widths))
    rebuilt = time.perf_counter()
    smaller = cut(job, done, samples.used)
    measured = measure(job, samples, smaller)
    job = reviewed(job, samples, done, measured, rebuilt - traced)
    end = time.perf_counter()
    seconds = {"trace": traced - start, "sensitivity": settled - traced, **done.seconds}
    return summarize(job, found, done, smaller, measured, {**seconds, "verify": end - rebuilt, "total": end - start})


def meet(job: Job) -> Allocated:
    """Return the widths that meet the budget; one that is met by trying brings its walk with it."""
    settings = job.settings
    return allocated(
        job.task,
        job.rooms,
        settings.budget,
        settings.allocator,
        job.price,
        job.chooser,
        settings.rules,
        job.trials,
        candidates=job.candidates,
        rounding=job.rounding,
    )


def sensitivity(
    model: Model,
    data: Source,
    *,
    selector: Selector | ProbingSelector = Refined(),
    rules: Mapping[str, Rule] = RULES,
    resources: Resources = Resources(),
    progress: Watch = silent,
    constants: Mapping[str, Constant] = MappingProxyType({}),
) -> tuple[GroupSensitivity, ...]:
    """Return how far the outputs of `model` move on `data` when one group alone gets narrower, its consumers refitted.

    constants: as in `prune`.
    """
    settings = Settings(
        budget=Macs(0.5),
        formulation=Asymmetric(),
        selector=selector,
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
