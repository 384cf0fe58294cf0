"""What widths lose when they are tried: the walk on three quarters of the samples, judged on the others."""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace

import numpy as np

from onnx_subprune._typing import Array
from onnx_subprune.allocation import BlockAware, Bound, MarginalCost, Terrain, local_moves
from onnx_subprune.calibration.data.masks import Visible
from onnx_subprune.calibration.streaming.stream import Stream
from onnx_subprune.calibration.survey import LOCAL
from onnx_subprune.errors import BudgetError
from onnx_subprune.evaluation.divergence import displacement
from onnx_subprune.evaluation.parts import apart, parts_of
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.rules.vocabulary import Rule
from onnx_subprune.pruning.budgets.ladder import Ladder, candidate
from onnx_subprune.pruning.budgets.trials import STARTS, Trials, streams_of
from onnx_subprune.reconstruction.domain import DomainError
from onnx_subprune.reconstruction.reconstruct import reconstruct
from onnx_subprune.reconstruction.task import Task
from onnx_subprune.runtime.spill import Store

UNEVEN, EVEN = 0.45, 1.25
"""How evenly the loss is spread (`MarginalCost`) in others than the ladder's own widths that are tried first: networks differ in what suits them."""

Widths = Mapping[str, int]


def tried(ladder: Ladder, fraction: float, task: Task, trials: Trials, rules: Mapping[str, Rule]) -> Widths:
    """Return the widths of the ladder at `fraction`, or better ones that cost no more."""
    starts = [widths for _, widths in starts_of(ladder, fraction, streams_of(task.graph))[: trials.most]]
    if len(starts) == 1 and trials.most <= STARTS:
        return starts[0]
    inner, aware = _parts(ladder)
    return local_moves(
        Terrain(
            rooms=ladder.rooms,
            errors=inner.tempered(ladder.rooms, ladder.curves),
            bound=Bound(
                ladder.cost,
                fraction * ladder.cost({}),
                None if aware is None else aware.work,
                0.0 if aware is None else max(*(aware.work(start) for start in starts), aware.allowed(fraction)),
            ),
        ),
        starts,
        _loss(task, trials, rules),
        trials.most,
    )


def best_ladder(
    ladder: Ladder, fraction: float, task: Task, trials: Trials | None, rules: Mapping[str, Rule]
) -> Ladder:
    """Return the ladder, or the one beside it whose widths at `fraction` lose less when they are tried; trials: None to try nothing.

    Where the ladder has not so much to give it is returned too: a cost that is predicted may be measured to be less.
    """
    starts = []
    if trials is not None:
        with suppress(BudgetError):
            starts = starts_of(ladder, fraction, streams_of(task.graph))[: min(trials.most, STARTS)]
    if trials is None or len(starts) < 2:
        return ladder
    loss = _loss(task, trials, rules)
    losses = [loss(widths) for _, widths in starts]
    return starts[int(np.argmin(losses))][0]


def starts_of(ladder: Ladder, fraction: float, streams: Collection[str]) -> list[tuple[Ladder, Widths]]:
    """Return ladders that share the loss out in different ways, this one first, with their widths at `fraction`, which differ too.

    streams: see `streams_of`. What these lose adds up along the model, so that they stay whole in the second and third. Where the user
    has chosen a power, it is kept. Those that have not so much to give are left out; BudgetError where the ladder itself has not.
    """
    found: list[tuple[Ladder, Widths]] = [(ladder, ladder.widths(fraction))]
    inner, aware = _parts(ladder)
    whole = replace(
        ladder, rooms=[room.at_least(room.width) if room.name in streams else room for room in ladder.rooms]
    )
    others = [whole]
    if inner == MarginalCost():
        for base, power in ((whole, UNEVEN), (ladder, EVEN)):
            other = replace(inner, power=power)
            others.append(replace(base, allocator=other if aware is None else replace(aware, inner=other)))
    for item in others:
        with suppress(BudgetError):
            widths = item.widths(fraction)
            if all(widths != known for _, known in found):
                found.append((item, widths))
    return found


def _parts(ladder: Ladder) -> tuple[MarginalCost, BlockAware | None]:
    """Return what allocates marginal costs, and what makes it aware of blocks, if anything does."""
    aware = ladder.allocator if isinstance(ladder.allocator, BlockAware) else None
    inner = ladder.allocator if aware is None else aware.inner
    assert isinstance(inner, MarginalCost), "moves begin at widths of least marginal cost"
    return inner, aware


def _loss(task: Task, trials: Trials, rules: Mapping[str, Rule]) -> Callable[[Widths], float]:
    """The displacement of the outputs on samples that the walk has not seen."""
    network = task.network
    outputs = list(task.graph.observation.judged)
    joint = 1 if trials.most > STARTS else 0
    refit = None if task.refit is None else replace(task.refit, joint=min(task.refit.joint, joint), through_time=0)
    executor = LOCAL if trials.cheap else task.executor
    trial = replace(task.drafted(), data=trials.fitted, refit=refit, executor=executor)

    def read(model: Network) -> list[Mapping[str, Array]]:
        with Store(task.memory) as store:
            found = [*Stream(model, trials.judged, store, task.running.deciding).read(outputs)]
        return Visible(trials.judged, task.running.mask).outputs(found)

    whole = read(network)
    parts = apart(parts_of(network, task.graph.observation, outputs), whole)
    reference = [parts.of(chunk) for chunk in whole]
    tries = 0

    def loss(widths: Widths) -> float:
        nonlocal tries

        def going_on(stage: str, done: int, total: int) -> None:
            task.watch("trying widths", tries, trials.most)

        going_on("", 0, 0)
        try:
            model = candidate(task, reconstruct(replace(trial, widths=widths, watch=going_on)), rules)
            lost = displacement(reference, [parts.of(chunk) for chunk in read(Network(model, network.folder))])
        except DomainError:  # such widths are not allowed
            lost = np.inf
        tries += 1
        going_on("", 0, 0)
        return lost if np.isfinite(lost) else np.inf

    return loss
