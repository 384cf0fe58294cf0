"""Widths whose latency is within a bound: allocated by milliseconds of a table, and measured in the end."""

import math
import shlex
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from onnx import ModelProto

from onnx_subprune.allocation import Latency, Multilinear, Params
from onnx_subprune.errors import ModelError, OptionError, VerificationError
from onnx_subprune.evaluation.latency import Race, raced, raced_feeds
from onnx_subprune.evaluation.timing import Timing, together
from onnx_subprune.graph.channels import ChannelGroup
from onnx_subprune.graph.costs.costs import costs
from onnx_subprune.graph.costs.milliseconds import milliseconds
from onnx_subprune.graph.costs.tables import kept_here, read_table
from onnx_subprune.graph.folding.fold import folded
from onnx_subprune.graph.rules.vocabulary import Rule
from onnx_subprune.graph.save import save_model, side_file_wanted
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.pruning.budgets.ladder import Allocated, Ladder
from onnx_subprune.pruning.budgets.latency_search import Search, Stopwatch, Widths
from onnx_subprune.reconstruction.task import Task
from onnx_subprune.runtime.blocks import convolution_block
from onnx_subprune.runtime.files import scratch
from onnx_subprune.runtime.session import Runnable

LONG, REPORTED, DOUBTED = 2.0, 0.25, 0.5
"""Seconds that a latency is measured for where it decides, where it is only reported, and where it is, but the model seems to be no faster."""
PASSES = 20
"""Passes over the data that a table may take."""
MORE = 2.0
"""A model that seems to be beyond its bound is measured for so many times as long again, and all that was measured counts."""


def timed_widths(
    budget: Latency, ladder: Ladder, task: Task, rules: Mapping[str, Rule], better: Callable[[Ladder], Ladder]
) -> Allocated:
    """Return the widths for a latency budget, allocated by the milliseconds of its table, or of one that is made here and kept.

    better: from a ladder to one that loses less of this budget, or the same. With a table from elsewhere nothing is measured here: what it
    predicts counts, unless the budget has a command that measures.
    """
    table = read_table(budget.table) if budget.table is not None else None
    timed = better(replace(ladder, cost=_price(task, table)))
    if table is not None and budget.measure is None:
        return Allocated(widths=timed.widths(budget.fraction))
    user = (task.given or task.network).timed
    ratio = stopwatch(task, rules, user) if budget.measure is None else commanded(task, rules, budget.measure)
    search = Search(budget=budget, ladder=timed, ratio=ratio, watch=task.watch, seconds=LONG)
    return Allocated(widths=search.widths(), instead=search.instead)


def _price(task: Task, table: Mapping[str, object] | None) -> Multilinear:
    """The time of the model as a function of its widths; its work, where it cannot be profiled here."""
    network, graph, block = task.network, task.graph, convolution_block()
    if table is None:
        feeds = raced_feeds(task.data)
        try:
            model = Runnable(network.given, network.folder, task.running.placement.timed)
            most = PASSES * task.data.samples / raced(task.data)
            table = kept_here(model, feeds, threads=task.running.threads, block=block, most=most)
        except ModelError:
            return costs(network, graph, block).work
    return milliseconds(network, graph, table)


def model_at(task: Task, rules: Mapping[str, Rule], widths: Widths) -> ModelProto:
    """Return the model at some widths; which channels stay, and the weights, do not matter for time."""
    supports = {name: first_channels(task.graph.group(name), width) for name, width in widths.items()}
    return folded(apply(task.network, task.graph, Plan(supports=supports), rules=rules)).model


def stopwatch(
    task: Task, rules: Mapping[str, Rule], original: ModelProto | None = None, samples: int | None = None
) -> Stopwatch:
    """Return what measures widths here against `original`, or else the model as it is loaded, on so many samples; see `Race`."""
    races: list[Race] = []

    def runnable(model: ModelProto) -> Runnable:
        return Runnable(model, task.network.folder, task.running.placement.timed)

    def ratio(widths: Widths, seconds: float) -> float:
        if not races:  # widths that nobody asks for cost no session
            whole = (task.given or task.network).given if original is None else original
            races.append(Race(runnable(whole), task.data, task.running.threads, samples))
        return races[0](runnable(model_at(task, rules, widths)), seconds).ratio

    return ratio


def commanded(task: Task, rules: Mapping[str, Rule], command: str) -> Stopwatch:
    """Return what measures widths with the user's own command."""
    before: list[float] = []

    def ratio(widths: Widths, seconds: float) -> float:
        if not before:
            before.append(milliseconds_by(command, (task.given or task.network).timed, task.network.folder))
        return milliseconds_by(command, model_at(task, rules, widths), task.network.folder) / before[0]

    return ratio


def milliseconds_by(command: str, model: ModelProto, folder: Path | None) -> float:
    """Return what the user's command prints last for a model, whose path takes the place of {model}; OptionError if that is no time."""
    with scratch() as temporary:
        path = temporary / "model.onnx"
        save_model(model, folder, path, side_file=side_file_wanted(model))
        words = [word.replace("{model}", str(path)) for word in shlex.split(command)]
        words = words if "{model}" in command else [*words, str(path)]
        try:
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            found = float(done.stdout.split()[-1])
        except (OSError, subprocess.CalledProcessError, ValueError, IndexError) as error:
            raise OptionError(f"--measure: {command!r} has to print milliseconds: {error}") from error
    if not (math.isfinite(found) and found > 0.0):
        raise OptionError(f"--measure: {command!r} printed {found}, which is no time")
    return found


def first_channels(group: ChannelGroup, width: int) -> tuple[int, ...]:
    """Return the first channels of a group, equally many of each cell."""
    cells = group.cells
    count = int(cells.max()) + 1
    return tuple(sorted(int(i) for cell in range(count) for i in np.flatnonzero(cells == cell)[: width // count]))


def result_timing(
    budget: object, original: Runnable, smaller: Runnable, here: Callable[[float], Timing]
) -> Timing | None:
    """Return how long the result takes: by the budget's command, `here` in so many seconds, or None where it is for another machine."""
    if isinstance(budget, Latency) and budget.measure is not None:
        models = [item.model for item in (original, smaller)]
        assert all(isinstance(model, ModelProto) for model in models), "models are in memory"
        times = [milliseconds_by(budget.measure, item.model, item.folder) for item in (original, smaller)]  # type: ignore[arg-type]  # see above
        return Timing(times[0], times[1], (times[1] / times[0],) * 3)
    if isinstance(budget, Latency):
        if budget.table is not None:
            return None
        found = here(LONG)
        return found if not exceeds(budget, found) else together(found, here(MORE * LONG), MORE)
    found = here(REPORTED)
    return here(DOUBTED) if found.ratio >= 1.0 and not isinstance(budget, Params) else found


def taken(found: Timing) -> float:
    """Return the share of the original's time, by the rounds or by the medians that are printed: the larger one."""
    return max(found.ratio, found.after / found.before)


def exceeds(budget: object, found: Timing) -> bool:
    """Return whether the budget bounds the latency and the model misses it."""
    return isinstance(budget, Latency) and taken(found) > budget.fraction


def check_latency(budget: object, found: Timing) -> None:
    """Raise VerificationError if the budget bounds the latency and the model misses it."""
    if isinstance(budget, Latency) and exceeds(budget, found):
        raise VerificationError(
            f"the pruned model takes {found.after:.4g} ms, {taken(found):.3g} of the original's {found.before:.4g} ms, and misses its bound of "
            f"{budget.fraction:.4g}: nothing was written; try again on a quieter machine, or a smaller --latency"
        )
