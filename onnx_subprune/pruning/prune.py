"""The whole story: trace, allocate, walk, cut, verify, report."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from onnx_subprune.allocation import Allocator, Channels, Latency, Macs, MarginalCost
from onnx_subprune.allocation.widths import GroupSensitivity
from onnx_subprune.calibration.data.samples import Calibration, open_data
from onnx_subprune.calibration.data.shifts import augmented
from onnx_subprune.calibration.data.sources import Source
from onnx_subprune.calibration.streaming.executor import Executor
from onnx_subprune.calibration.survey import LOCAL
from onnx_subprune.errors import OptionError
from onnx_subprune.evaluation.fidelity import fidelity
from onnx_subprune.evaluation.latency import measured_latency
from onnx_subprune.evaluation.metric import Accuracy, Judged, Metric, judge_of
from onnx_subprune.evaluation.report.model import Change, Report
from onnx_subprune.evaluation.verification import verify
from onnx_subprune.graph.cost import costs, parameters
from onnx_subprune.graph.network import Model, Network, identity, load, model_bytes, ports
from onnx_subprune.graph.rules import RULES
from onnx_subprune.graph.rules.vocabulary import Rule
from onnx_subprune.graph.save import settled, side_file_wanted
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.graph.tracing.branches import dispensable
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.budgets import (
    Budget,
    MaxDrop,
    allocated,
    can_be_tried,
    check_latency,
    latency_seconds,
    trials_of,
)
from onnx_subprune.pruning.channel_scores import scored
from onnx_subprune.pruning.eligibility import least_width, restricted, rooms_of
from onnx_subprune.pruning.resources import Resources, memory_of, running_of
from onnx_subprune.pruning.result import Pruned
from onnx_subprune.pruning.sensitivity import sensitivities
from onnx_subprune.pruning.summary import group_reports
from onnx_subprune.reconstruction.reconstruct import reconstruct
from onnx_subprune.reconstruction.settings import Asymmetric, Formulation, Refit
from onnx_subprune.reconstruction.task import Task
from onnx_subprune.runtime.progress import Watch, silent
from onnx_subprune.runtime.session import Runnable, environment
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
    round_to: int = 1,
    min_width: int | None = None,
    refit: Refit | None = Refit(),
    metric: Metric | None = None,
    rules: Mapping[str, Rule] = RULES,
    resources: Resources = Resources(),
    progress: Watch = silent,
    executor: Executor = LOCAL,
) -> Pruned:
    """Make `model` smaller, so that it meets `budget` and its outputs on `data` change as little as possible.

    exclude, only: patterns (globs) of node, group or weight names, or "op:Conv". round_to: widths are multiples of this; groups that have no
    smaller one take its halves (`Room`), and MarginalCost keeps the work of kernels with blocks of so many channels near the budget of
    multiply-accumulates too (`BlockAware`). min_width: no group gets narrower; at 0, the default with rounded widths or a budget of latency, whole
    residual branches may go. refit: None keeps the weights as they are.
    metric: measured before and after (by default that of the budget). executor: where the models run: here, or on
    a cluster. Nothing passed in is changed. Raises SubpruneError and its kinds.
    """
    clock, start = time.perf_counter, time.perf_counter()
    triable = can_be_tried(budget, allocator, round_to)
    if resources.trials and not triable:
        raise OptionError("--trials goes with --macs or --params, allocation by sensitivity and widths of any size")
    network = load(model)
    whole = trace(network, rules=rules)
    calibration, rest = open_data(data, ports(network), samples=resources.samples)
    macs = costs(network, whole).macs({})

    def with_copies(samples: Calibration) -> Calibration:
        return augmented(samples, network, whole, macs, shifts=shifts)

    fitted = augmented(calibration, network, whole, macs, shifts=resources.shifts)
    shifts = fitted.samples > calibration.samples
    graph = restricted(whole, network, only=only, exclude=exclude, samples=fitted.samples)
    price = costs(network, graph, block=round_to)
    metric = budget.metric if metric is None and isinstance(budget, MaxDrop) else metric
    judged_by = None
    if metric is not None:
        judge = judge_of(metric, calibration, rest, network.folder, resources.threads)
        judged_by = Judged(judge, judge(network.proto))
    traced = clock()
    task = Task(
        network=network,
        graph=graph,
        data=fitted,
        widths={},
        formulation=formulation,
        selector=selector,
        refit=refit,
        running=running_of(resources),
        memory=memory_of(resources),
        watch=progress,
        clock=clock,
        executor=executor,
    )
    least = least_width(min_width, for_speed=round_to > 1 or isinstance(budget, Latency))
    with threadpool_limits(1):
        rooms = rooms_of(graph, round_to=round_to, min_width=least, dispensable=dispensable(network, graph))
        task = scored(task, rooms, budget.fraction if isinstance(budget, Channels) else 1.0)
        trials = trials_of(calibration, macs, len(rooms), resources.trials, with_copies) if triable else None
        found = allocated(task, rooms, budget, allocator, price, judged_by, rules, trials, round_to=round_to)
        settled_widths = clock()
        done = found.done or reconstruct(replace(task, widths=found.widths))
    rebuilt = clock()
    plan = Plan(supports={name: choice.support for name, choice in done.choices.items()}, weights=done.weights)
    small = apply(network, graph, plan, rules=rules)
    apart = settled(small, network.folder if side_file_wanted(network.proto) else None)
    small, folder = (small, network.folder) if apart is None else (apart.model, apart.folder)
    deviation = verify(network, graph, plan, small, few(calibration), folder)
    judged = rest if rest is not None else judged_of(calibration)
    before, after = Runnable(network.proto, network.folder), Runnable(small, folder)
    sliced = Network(small, folder)
    latency = Change(*measured_latency(before, after, calibration, resources.threads, latency_seconds(budget)))
    check_latency(budget, latency.before, latency.after)
    scores = Change(judged_by.base, judged_by.judge(small)) if judged_by is not None else None
    faithful = fidelity(before, after, judged, threads=resources.threads)
    if scores is not None and isinstance(metric, Accuracy):
        faithful = replace(faithful, accuracy=(scores.before, scores.after))
    report = Report(
        model=identity(model),
        data={"samples": calibration.samples, "sha256": calibration.sha256()},
        settings={
            "budget": str(budget),
            "formulation": type(formulation).__name__,
            "selector": str(selector),
            "allocator": str(allocator),
            "refit": str(refit),
            "metric": str(metric or ""),
            "round_to": round_to,
            "min_width": least,
            "exclude": " ".join(exclude),
            "only": " ".join(only),
            "shifts": shifts,
        },
        environment=environment(),
        params=Change(parameters(network), parameters(sliced)),
        macs=Change(price.macs({}), price.macs(found.widths)),
        size=Change(model_bytes(network.proto), model_bytes(small)),
        latency=latency,
        groups=group_reports(graph, done, found.felt),
        pinned=graph.pinned,
        fidelity=faithful,
        metric=scores,
        deviation=deviation,
        seconds={
            "trace": traced - start,
            "sensitivity": settled_widths - traced,
            **done.seconds,
            "verify": clock() - rebuilt,
            "total": clock() - start,
        },
        notes=("local functions were inlined",) if network.inlined else (),
    )
    side_file = side_file_wanted(small) or side_file_wanted(network.proto)
    return Pruned(model=small, report=report, folder=folder, side_file=side_file, apart=apart)


def sensitivity(
    model: Model,
    data: Source,
    *,
    selector: Selector | ProbingSelector = Refined(),
    rules: Mapping[str, Rule] = RULES,
    resources: Resources = Resources(),
    progress: Watch = silent,
) -> tuple[GroupSensitivity, ...]:
    """Return how far the outputs of `model` move on `data` when one group alone gets narrower, its consumers refitted."""
    network = load(model)
    calibration, _ = open_data(data, ports(network), samples=resources.samples)
    whole = trace(network, rules=rules)
    fitted = augmented(calibration, network, whole, costs(network, whole).macs({}), shifts=resources.shifts)
    graph = restricted(whole, network, only=(), exclude=(), samples=fitted.samples)
    task = Task(
        network=network,
        graph=graph,
        data=fitted,
        widths={},
        formulation=Asymmetric(),
        selector=selector,
        refit=Refit(),
        running=running_of(resources),
        memory=memory_of(resources),
        watch=progress,
        clock=time.perf_counter,
    )
    with threadpool_limits(1):
        rooms = rooms_of(graph, round_to=1, min_width=1)
        found = sensitivities(scored(task, rooms, 1.0), rooms)
    return tuple(found[group.name] for group in graph.groups)


CHECKED = 8
"""Samples that the law is checked on."""


def few(data: Calibration) -> Mapping[str, NDArray[np.generic]]:
    """Return so many samples of the first chunk as a check needs."""
    feeds = next(data.chunks())
    return feeds if data.fixed else {name: array[:CHECKED] for name, array in feeds.items()}


JUDGED, JUDGED_BYTES = 256, 1 << 24
"""Samples of the calibration data that fidelity is measured on where there are no others: what was fitted says little about others anyway."""


def judged_of(data: Calibration) -> Calibration:
    """Return the first samples, as many as fidelity is measured on."""
    return data.take(max(data.chunk, min(JUDGED, JUDGED_BYTES // max(data.sample_bytes, 1))))
