"""Widths whose latency is within a bound: allocated by milliseconds of a table, and measured in the end."""

import math
import shlex
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from onnx import ModelProto

from onnx_subprune.allocation import Latency, Multilinear
from onnx_subprune.errors import BudgetError, ModelError, OptionError, VerificationError
from onnx_subprune.evaluation.latency import Race, raced_feeds
from onnx_subprune.evaluation.timing import Timing
from onnx_subprune.graph.channels import ChannelGroup
from onnx_subprune.graph.costs.costs import costs
from onnx_subprune.graph.costs.milliseconds import milliseconds
from onnx_subprune.graph.costs.tables import kept_here, read_table
from onnx_subprune.graph.rules.vocabulary import Rule
from onnx_subprune.graph.save import save_model, side_file_wanted
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.pruning.budgets.ladder import Ladder
from onnx_subprune.reconstruction.task import Task
from onnx_subprune.runtime.blocks import convolution_block
from onnx_subprune.runtime.files import scratch
from onnx_subprune.runtime.progress import Watch
from onnx_subprune.runtime.session import Runnable

ATTEMPTS = 6
"""Widths that are measured at most: each aims at what the ones before it missed the bound by."""
LONG, REPORTED = 2.0, 0.25
"""Seconds that a latency is measured for where it decides, and where it is only reported."""
MARGIN = 0.95
"""A latency budget aims below the bound by this factor, because the last measurement scatters too, by several per cent on a busy machine."""
NEAR = 0.95
"""Widths that take this much of what is allowed are near enough."""

Widths = Mapping[str, int]


class Stopwatch(Protocol):
    """Measures the latency at some widths over that of the original, for about so many seconds."""

    def __call__(self, widths: Widths, seconds: float) -> float:
        """Return the ratio."""


def within_latency(budget: Latency, ladder: Ladder, ratio: Stopwatch, watch: Watch) -> Widths:
    """Return the widths with the least loss among those that are measured to be within the budget; `ladder.cost` predicts their time.

    What widths miss the bound by, the next ones aim beside it. Raises BudgetError if none are within, naming the least that was measured.
    """
    bound = budget.fraction * MARGIN
    aim, best, measured = bound, None, dict[float, Widths]()
    for attempt in range(ATTEMPTS):
        watch("measuring latencies", attempt, ATTEMPTS)
        try:
            widths: Widths = ladder.widths(aim)
        except BudgetError:
            widths = ladder.smallest
        if widths in measured.values():
            break
        found = ratio(widths, LONG)
        measured[found] = widths
        if found <= bound and (best is None or ladder.loss(widths) < ladder.loss(best)):
            best = widths
        if NEAR * bound <= found <= bound:
            break
        aim = min(aim * bound / found, 0.999)
    if best is None:
        least, room = min(measured), ""
        if least <= budget.fraction:
            room = f", and {bound:.3g} is aimed at, since the last measurement scatters too"
        raise BudgetError(
            f"the latency {budget.fraction:.4g} cannot be reached: the least measured here is {least:.3g} of the original's{room}; "
            "allow more, or prune more of it (--only, --exclude, --min-width, --round-to)"
        )
    return best


def timed_widths(budget: Latency, ladder: Ladder, task: Task, rules: Mapping[str, Rule]) -> Widths:
    """Return the widths for a latency budget, allocated by the milliseconds of its table, or of one that is made here and kept.

    With a table from elsewhere nothing is measured here: what it predicts counts, unless the budget has a command that measures.
    """
    table = read_table(budget.table) if budget.table is not None else None
    timed = replace(ladder, cost=_price(task, table))
    if budget.measure is not None:
        return within_latency(budget, timed, commanded(task, rules, budget.measure), task.watch)
    if table is not None:
        return timed.widths(budget.fraction)
    return within_latency(budget, timed, stopwatch(task, rules), task.watch)


def _price(task: Task, table: Mapping[str, object] | None) -> Multilinear:
    """The time of the model as a function of its widths; its work, where it cannot be profiled here."""
    network, graph, block = task.network, task.graph, convolution_block()
    if table is None:
        feeds = raced_feeds(task.data)
        try:
            model = Runnable(network.given, network.folder, task.running.placement.timed)
            table = kept_here(model, feeds, threads=task.running.threads, block=block)
        except ModelError:
            return costs(network, graph, block).work
    return milliseconds(network, graph, table)


def model_at(task: Task, rules: Mapping[str, Rule], widths: Widths) -> ModelProto:
    """Return the model at some widths; which channels stay, and the weights, do not matter for time."""
    supports = {name: first_channels(task.graph.group(name), width) for name, width in widths.items()}
    return apply(task.network, task.graph, Plan(supports=supports), rules=rules)


def stopwatch(task: Task, rules: Mapping[str, Rule]) -> Stopwatch:
    """Return what measures widths here."""
    races: list[Race] = []

    def runnable(model: ModelProto) -> Runnable:
        return Runnable(model, task.network.folder, task.running.placement.timed)

    def ratio(widths: Widths, seconds: float) -> float:
        if not races:  # widths that nobody asks for cost no session
            races.append(Race(runnable(task.network.given), task.data, task.running.threads))
        return races[0](runnable(model_at(task, rules, widths)), seconds).ratio

    return ratio


def commanded(task: Task, rules: Mapping[str, Rule], command: str) -> Stopwatch:
    """Return what measures widths with the user's own command."""
    before: list[float] = []

    def ratio(widths: Widths, seconds: float) -> float:
        if not before:
            before.append(milliseconds_by(command, task.network.given, task.network.folder))
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


def result_timing(budget: object, original: Runnable, smaller: Runnable, here: Callable[[], Timing]) -> Timing | None:
    """Return how long the result takes: by the budget's command, `here`, or None where it is for another machine."""
    if isinstance(budget, Latency) and budget.measure is not None:
        models = [item.model for item in (original, smaller)]
        assert all(isinstance(model, ModelProto) for model in models), "models are in memory"
        times = [milliseconds_by(budget.measure, item.model, item.folder) for item in (original, smaller)]  # type: ignore[arg-type]  # see above
        return Timing(times[0], times[1], (times[1] / times[0],) * 3)
    return None if isinstance(budget, Latency) and budget.table is not None else here()


def latency_seconds(budget: object) -> float:
    """Return how long to measure the result."""
    return LONG if isinstance(budget, Latency) else REPORTED


def check_latency(budget: object, found: Timing) -> None:
    """Raise VerificationError if the budget bounds the latency and the model misses it."""
    if isinstance(budget, Latency) and found.ratio > budget.fraction:
        raise VerificationError(
            f"the pruned model takes {found.after:.4g} ms, {found.ratio:.3g} of the original's {found.before:.4g} ms, and misses its bound of "
            f"{budget.fraction:.4g}: nothing was written; try again on a quieter machine, or a smaller --latency"
        )
