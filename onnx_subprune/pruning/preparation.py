"""What is known before any layer is pruned: the traced model, its costs, the data and who judges."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from onnx_subprune.allocation import Latency, Macs, Params
from onnx_subprune.calibration.data.masks import mask_of
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.data.sources import Source
from onnx_subprune.calibration.shifts import MIRRORED, MOVES, Copies, alike, moved, rows_and_columns
from onnx_subprune.calibration.streaming.settings import Running
from onnx_subprune.evaluation.latency import raced_feeds
from onnx_subprune.evaluation.metric import Accuracy, Judged, Judging, judge_of
from onnx_subprune.graph.channels import ChannelGraph
from onnx_subprune.graph.costs.costs import Costs, costs
from onnx_subprune.graph.costs.pointwise import saved
from onnx_subprune.graph.costs.sizes import Sizes
from onnx_subprune.graph.formats import Model, identity
from onnx_subprune.graph.network import Network, load
from onnx_subprune.graph.tracing.branches import dispensable
from onnx_subprune.pruning.budgets.budget import Budget
from onnx_subprune.pruning.budgets.trials import Trials, streams_of, trials_of
from onnx_subprune.pruning.eligibility import restricted
from onnx_subprune.pruning.job import Job
from onnx_subprune.pruning.opening import check_repeats, opened
from onnx_subprune.pruning.rare import Rare
from onnx_subprune.pruning.resources import memory_of, running_of
from onnx_subprune.pruning.samples import Samples, samples_of
from onnx_subprune.pruning.settings import Settings
from onnx_subprune.pruning.turning import shortened, turned
from onnx_subprune.reconstruction.task import Task
from onnx_subprune.runtime.observing import observing
from onnx_subprune.runtime.placement import ON_PROCESSOR, Placement
from onnx_subprune.runtime.session import Runnable

ALONE = 5 * 10**6
"""Multiply-accumulates of a chunk below which a second thread costs more than it does."""


def prepare(model: Model, data: Source, settings: Settings) -> tuple[Job, Samples]:
    """Load, trace and price `model`, and open `data`. Raises ModelError, DataError and OptionError where these do not fit."""
    resources, network = settings.resources, load(model)
    found = opened(
        network,
        data,
        samples=resources.samples,
        memory=resources.memory,
        constants=settings.constants,
        rules=settings.rules,
        labelled=isinstance(settings.judged_by, Accuracy),
    )
    given, rest, whole = found.calibration, found.rest, found.graph
    check_repeats(network, given)
    macs = costs(network, whole).macs({})
    with_copies = Copies(network, whole, macs, resources.shifts, partial(_mirrored_alike, network, whole, given))
    seldom, chooses = Rare(network, whole), settings.chosen_by_metric
    samples = samples_of(
        given, rest, resources.holdout, with_copies, seldom, chooses=chooses, tunes=settings.finetune is not None
    )
    used, fitted = samples.used, samples.fitted
    graph = restricted(whole, network, only=settings.only, exclude=settings.exclude, samples=fitted.samples)
    held_out = samples.judged.data.samples if samples.held_out else 0
    placement = resources.placement(Runnable(network.given, network.folder), raced_feeds(given))
    mask = mask_of(network, fitted, resources.mask)
    threads = 1 if macs * fitted.chunk < ALONE else resources.threads
    running = replace(running_of(resources, whole.observation, placement), mask=mask, threads=threads)
    task = _task(settings, network, graph, fitted, running)
    task, shorter = shortened(task, settings.rules, smaller=isinstance(settings.budget, Params))
    task, bases = turned(task, settings.rules) if settings.free_bases else (task, frozenset[str]())
    tried_on = partial(_tried_on, task, most=resources.trials, augment=with_copies)
    rounding = settings.rounding_for(task.network, task.graph)
    rooms = rounding.rooms(task.graph, min_width=settings.least, dispensable=dispensable(task.network, task.graph))
    job = Job(
        settings=settings,
        original=network,
        network=task.network,
        task=task,
        rounding=rounding,
        price=_price(task, whole, rounding.block, settings),
        rooms=rooms,
        model=identity(model),
        data={"samples": used.samples, "held_out": held_out, "sha256": given.sha256()},
        described={
            **settings.to_dict(),
            "round_to": rounding.name,
            "shifts": samples.shifts and with_copies.moves == MOVES,
            "mirrored": samples.shifts and with_copies.moves == (MIRRORED,),
            "mask": mask or "",
            **_placed(placement),
        },
        chooser=_judged(network, samples.chosen, settings) if chooses else None,
        judge=_judged(network, samples.judged, settings),
        candidates=samples.candidates,
        trials=tried_on(used, macs, len(rooms), settings.budget) if settings.triable else None,
        turned=bases,
        steps=(shorter.maps, shorter.activations),
        notes=(*loading_notes(network), *_sizes_note(given)),
    )
    return job, samples


def _task(settings: Settings, network: Network, graph: ChannelGraph, data: Calibration, running: Running) -> Task:
    """The walk through `graph`, without widths."""
    return Task(
        network=network,
        graph=graph,
        data=data,
        widths={},
        formulation=settings.formulation,
        selector=settings.selector,
        refit=settings.refit,
        running=running,
        memory=memory_of(settings.resources),
        watch=settings.progress,
        clock=time.perf_counter,
        executor=settings.executor,
    )


def _price(task: Task, whole: ChannelGraph, block: int, settings: Settings) -> Costs:
    """The costs at any widths; what the model that was given, of the graph `whole`, takes beside counts as work that goes."""
    price = costs(task.network, task.graph, block=block, refitted=settings.refit is not None)
    if task.given is None:
        return price
    return replace(price, folded=price.folded + saved(task.given, whole, Sizes(task.given, whole, block)))


def _placed(placement: Placement) -> Mapping[str, str]:
    """What the report says of where models ran; nothing where all did on the processor."""
    return {} if placement == ON_PROCESSOR else {"providers": str(placement)}


def _judged(network: Network, on: Judging, settings: Settings) -> Judged | None:
    """The user's metric on some samples, and what it says of the original."""
    if settings.judged_by is None:
        return None
    judge = judge_of(settings.judged_by, on, network.folder, settings.resources.threads)
    return Judged(judge, judge(network.given))


def _tried_on(
    task: Task,
    data: Calibration,
    macs: float,
    groups: int,
    budget: Budget,
    *,
    most: int | None,
    augment: Callable[[Calibration], Calibration],
) -> Trials | None:
    """What widths are tried on; see `trials_of`."""
    graph = task.graph
    columns = [rows_and_columns(task.network, graph, item, task.data.samples)[1] for item in graph.contractions]
    streams = bool(streams_of(graph))
    assert isinstance(budget, Macs | Params | Latency), "others leave nothing to try"
    return trials_of(
        data, macs, groups, streams=streams, fraction=budget.fraction, layers=columns, most=most, augment=augment
    )


def _mirrored_alike(network: Network, graph: ChannelGraph, data: Calibration, names: tuple[str, ...]) -> bool:
    """True if the model hardly sees that the images `names` are mirrored, by one chunk."""
    feeds, outputs = next(iter(data.chunks())), list(graph.observation.judged)
    turned = {name: np.ascontiguousarray(moved(feeds[name], *MIRRORED)) for name in names}
    session = observing(network.given, outputs, network.folder)
    seen, mirrored = (session.run(item, outputs) for item in (feeds, {**feeds, **turned}))
    return bool(outputs) and alike([seen[name] for name in outputs], [mirrored[name] for name in outputs])


def loading_notes(network: Network) -> tuple[str, ...]:
    """Return what the report says of functions and Loops that are not there any more."""
    found = ["local functions were inlined"] if network.inlined else []
    if network.loops:
        what = "a Loop over steps is" if network.loops == 1 else f"{network.loops} Loops over steps are"
        found.append(
            f"{what} written as LSTM, GRU or RNN, which is faster by itself; milliseconds by layer are of the model with these"
        )
    return tuple(found)


def _sizes_note(data: Calibration) -> list[str]:
    """What runs of different sizes mean for the numbers of the report."""
    if not data.ragged:
        return []
    return [
        "the runs have different sizes, and are fed one by one, which takes longer than batches of one size; costs and latency are those of a middling one"
    ]
