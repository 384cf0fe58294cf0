"""Sharded collection, and pruning from what was collected: the layerwise formulation, without any data at hand."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from onnx_subprune.allocation import (
    Allocator,
    Channels,
    Curve,
    Macs,
    MarginalCost,
    Params,
    Room,
    block_aware,
    proportional,
)
from onnx_subprune.allocation.widths import GroupSensitivity
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.files import Recorded, StatisticsFile
from onnx_subprune.calibration.streaming.settings import Running
from onnx_subprune.errors import OptionError
from onnx_subprune.evaluation.report.model import Change, Report
from onnx_subprune.evaluation.verification import verify
from onnx_subprune.graph.contractions.contraction import kernel_of
from onnx_subprune.graph.cost import Costs, costs, parameters
from onnx_subprune.graph.network import Model, Network, identity, load, model_bytes
from onnx_subprune.graph.observation import made_up
from onnx_subprune.graph.rules import RULES
from onnx_subprune.graph.rules.vocabulary import Rule
from onnx_subprune.graph.save import side_file_wanted
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.graph.tracing.branches import dispensable
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.budgets import Budget
from onnx_subprune.pruning.eligibility import least_width, restricted, rooms_of
from onnx_subprune.pruning.resources import Resources, memory_of
from onnx_subprune.pruning.result import Pruned
from onnx_subprune.pruning.sensitivity import trial_widths
from onnx_subprune.pruning.summary import group_reports
from onnx_subprune.reconstruction.columns import problem_of
from onnx_subprune.reconstruction.reconstruct import reconstruct
from onnx_subprune.reconstruction.settings import Layerwise, Refit
from onnx_subprune.reconstruction.task import Task
from onnx_subprune.runtime.progress import Watch, silent
from onnx_subprune.runtime.session import environment
from onnx_subprune.selection import ProbingSelector, Refined, Selector

NOTES = (
    "pruned from moments of the original model: the layerwise formulation; widths from the errors of each layer alone",
    "fidelity and latency were not measured: there are no data; `compare` measures them",
)


def prune_collected(  # noqa: PLR0913 - the interface's signature
    model: Model,
    statistics: str | os.PathLike[str],
    *,
    budget: Budget = Macs(0.5),
    selector: Selector | ProbingSelector = Refined(),
    allocator: Allocator = MarginalCost(),
    exclude: Sequence[str] = (),
    only: Sequence[str] = (),
    round_to: int = 1,
    min_width: int | None = None,
    refit: Refit | None = Refit(),
    rules: Mapping[str, Rule] = RULES,
    resources: Resources = Resources(),
    progress: Watch = silent,
) -> Pruned:
    """Make `model` smaller, so that it meets `budget` and each layer's outputs on the data of `statistics` change little.

    statistics: a file of all shards, from `collect` or `merge`. Settings as in `prune`. No data are needed: the result is verified on made-up
    inputs, and its fidelity is not measured. Raises SubpruneError and its kinds.
    """
    if isinstance(selector, ProbingSelector):
        raise OptionError(f"{type(selector).__name__} runs the model on data: give --data instead of --statistics")
    if not isinstance(budget, (Macs, Params, Channels)):
        raise OptionError(f"{type(budget).__name__} needs models that run on data: give --data instead of --statistics")
    if resources.trials or resources.shifts:
        raise OptionError("--trials and --shifts run the model on data: give --data instead of --statistics")
    clock, start = time.perf_counter, time.perf_counter()
    network = load(model)
    graph = restricted(trace(network, rules=rules), network, only=only, exclude=exclude)
    price = costs(network, graph, block=round_to)
    feeds = made_up(network, graph.observation)
    samples = Calibration(arrays=feeds, chunk=max((len(array) for array in feeds.values()), default=1))
    named = "(in memory)" if not isinstance(model, (str, os.PathLike)) else model
    with StatisticsFile(Path(statistics)) as file, threadpool_limits(1):
        task = Task(
            network=network,
            graph=graph,
            data=samples,
            widths={},
            formulation=Layerwise(),
            selector=selector,
            refit=refit,
            running=Running(batch_size=resources.batch_size, threads=resources.threads),
            memory=memory_of(resources),
            watch=progress,
            clock=clock,
            executor=Recorded.open(file, network, str(named)),
        )
        traced = clock()
        least = least_width(min_width, for_speed=round_to > 1)
        rooms = rooms_of(graph, round_to=round_to, min_width=least, dispensable=dispensable(network, graph))
        felt = (
            error_curves(task, rooms)
            if isinstance(allocator, MarginalCost) and not isinstance(budget, Channels)
            else {}
        )
        if isinstance(budget, Macs):
            allocator = block_aware(allocator, price.work, round_to)
        widths = _widths(task, rooms, budget, allocator, price, felt)
        allocated = clock()
        done = reconstruct(replace(task, widths=widths))
        header = file.header
    rebuilt = clock()
    plan = Plan(supports={name: choice.support for name, choice in done.choices.items()}, weights=done.weights)
    small = apply(network, graph, plan, rules=rules)
    deviation = verify(network, graph, plan, small, feeds)
    report = Report(
        model=identity(model),
        data={"samples": header.settings.samples, "sha256": header.data},
        settings={
            "budget": str(budget),
            "formulation": "Layerwise",
            "selector": str(selector),
            "allocator": str(allocator),
            "refit": str(refit),
            "round_to": round_to,
            "min_width": least,
            "exclude": " ".join(exclude),
            "only": " ".join(only),
            "statistics": str(statistics),
        },
        environment=environment(),
        params=Change(parameters(network), parameters(Network(small, network.folder))),
        macs=Change(price.macs({}), price.macs(widths)),
        size=Change(model_bytes(network.proto), model_bytes(small)),
        latency=None,
        groups=group_reports(graph, done, felt),
        pinned=graph.pinned,
        fidelity=None,
        deviation=deviation,
        seconds={
            "trace": traced - start,
            "sensitivity": allocated - traced,
            **done.seconds,
            "verify": clock() - rebuilt,
            "total": clock() - start,
        },
        notes=(*NOTES, *(("local functions were inlined",) if network.inlined else ())),
    )
    side_file = side_file_wanted(small) or side_file_wanted(network.proto)
    return Pruned(model=small, report=report, folder=network.folder, side_file=side_file)


def error_curves(task: Task, rooms: Sequence[Room]) -> dict[str, GroupSensitivity]:
    """Return, for every group, the error of its consumers at each width: what stands in for the error of the output."""
    found = {}
    for done, room in enumerate(rooms):
        group, widths = task.graph.group(room.name), trial_widths(room)
        contractions = [consumer.contraction for consumer in group.consumers]
        steps = task.survey(contractions)
        moments = {contraction.weight: item for contraction, item in steps}
        problems = []
        for consumer in group.consumers:
            kernel, weights = kernel_of(task.network, consumer.contraction)
            alive = np.ones(weights.shape[0] * weights.shape[1], bool)
            halves = moments[consumer.weight]
            problems.append(problem_of(consumer, kernel, halves.whole.centered(), weights, alive, halves.shrinkage))
        choices = task.choose(group, problems, widths)
        curve = Curve(widths, tuple(choice.error for choice in choices))
        found[room.name] = GroupSensitivity(name=room.name, output=curve, consumers=curve)
        task.watch("error curves", done + 1, len(rooms))
    return found


def _widths(
    task: Task,
    rooms: Sequence[Room],
    budget: Macs | Params | Channels,
    allocator: Allocator,
    price: Costs,
    felt: Mapping[str, GroupSensitivity],
) -> dict[str, int]:
    if isinstance(budget, Channels):
        return proportional(rooms, budget.fraction)
    cost = price.macs if isinstance(budget, Macs) else price.params
    curves = {name: item.output for name, item in felt.items()}
    return dict(allocator.allocate(rooms, curves, cost, budget.fraction * cost({})))
