"""What the model's output loses when one group alone gets narrower, its consumers refitted; no labels.

Pass one over the original model takes the moments of every consumer on each half of the samples; channels and refitted weights at a few
widths follow from those. Pass two, on fewer samples, runs what lies behind the group with each of these weights, which are inputs of one
session a group: every sample with weights that were fitted to the other half.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from onnx_subprune._typing import Array
from onnx_subprune.allocation import Curve, Room
from onnx_subprune.allocation.widths import GroupSensitivity
from onnx_subprune.calibration.data.masks import Visible
from onnx_subprune.calibration.moments.halves import Halves
from onnx_subprune.calibration.streaming.stream import Stream
from onnx_subprune.evaluation.divergence import displacement
from onnx_subprune.evaluation.parts import apart, parts_of
from onnx_subprune.graph.channels import ChannelGroup, Use
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.observing import made_before
from onnx_subprune.graph.surgery.masking import zero_channels
from onnx_subprune.graph.surgery.surgery import Plan
from onnx_subprune.pruning.budgets.effort import FEWER, FEWEST, dear, samples_for
from onnx_subprune.pruning.budgets.halved_trials import (
    SELDOM,
    TRIED,
    Widths,
    completed,
    trial_widths,
    tried_out,
    without_loss,
)
from onnx_subprune.pruning.budgets.lossless import lossless_width
from onnx_subprune.reconstruction.gate_importance import with_importance
from onnx_subprune.reconstruction.products import measured, strongest
from onnx_subprune.reconstruction.statistics import statistics_at
from onnx_subprune.reconstruction.task import Task
from onnx_subprune.runtime.spill import Held, Store
from onnx_subprune.runtime.threads import alongside
from onnx_subprune.selection import Choice


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Trials:
    """Refitted weights of a group's consumers for the widths that are tried, held in the store, and the consumers' error at these and others.

    values: for each width, those that were fitted to each half of the samples. lossless: see `GroupSensitivity`. one_way: see `Trial`.
    """

    group: ChannelGroup
    tried: Mapping[int, Choice]
    values: tuple[tuple[Mapping[Use, Held], ...], ...]
    consumers: Curve
    lossless: int
    one_way: bool = False

    def judges(self, chunks: int) -> Sequence[int]:
        """Return which of so many chunks judge: those that nothing was fitted to."""
        return range(1, chunks, 2) if self.one_way else range(chunks)

    def sensitivity(self, errors: Sequence[float]) -> GroupSensitivity:
        """Return the sensitivity for these errors of the output, one for each width that was tried.

        An error that is no finite number belongs to a width that is not allowed: what reads the group leaves its domain.
        """
        found = dict(zip(self.tried, errors, strict=True))
        broken = max((width for width, error in found.items() if not np.isfinite(error)), default=-1)
        allowed = {width: error for width, error in found.items() if width > broken}
        least = min(allowed, default=self.group.width) if broken >= 0 else 0
        measured = completed(Curve(tuple(allowed), tuple(allowed.values())), self.consumers) if allowed else None
        output = (
            Curve(self.consumers.widths, tuple(1.0 for _ in self.consumers.widths)) if measured is None else measured
        )
        return GroupSensitivity(
            name=self.group.name,
            output=without_loss(output, self.lossless),
            consumers=without_loss(self.consumers, self.lossless),
            lossless=self.lossless,
            least=least,
        )


def sensitivities(
    task: Task, rooms: Sequence[Room], loss: Callable[[Plan], float] | None = None
) -> dict[str, GroupSensitivity]:
    """Return the sensitivity of every room's group; `task.widths` and `task.refit` are not looked at.

    loss: what the model of a plan loses, in place of the displacement of its outputs.
    """
    groups = [task.graph.group(room.name) for room in rooms]
    task = with_importance(measured(task.drafted()), groups)
    every = {room.name: trial_widths(room) for room in rooms}
    firsts = (min((task.network.position[item.weight.node] for item in group.consumers), default=0) for group in groups)
    seldom = loss is None and dear(task, [(len(TRIED), first) for first in firsts])
    shares, least = (SELDOM, FEWEST) if seldom else (TRIED, FEWER)
    tried = every if loss is not None else {room.name: trial_widths(room, shares) for room in rooms}
    widths = {room.name: Widths(tried[room.name], every[room.name], room.choices) for room in rooms}
    with Store(task.memory) as store:
        trials = _prepare(task, [group for group in groups if group.product is None], widths, store)
        trials = _normalized(task, trials, store)
        trials += [_weakened(task, group, widths[group.name], store) for group in groups if group.product is not None]
        return _measure(task, trials, store, least) if loss is None else _judge(task, trials, loss)


def _prepare(task: Task, groups: Sequence[ChannelGroup], widths: Mapping[str, Widths], store: Store) -> list[_Trials]:
    needed = {consumer.weight: consumer.contraction for group in groups for consumer in group.consumers}
    waiting = {group.name: {consumer.weight for consumer in group.consumers} for group in groups}
    moments: dict[Use, Halves] = {}
    trials = []
    for done, (contraction, found) in enumerate(task.survey(list(needed.values()))):
        moments[contraction.weight] = found
        for group in groups:
            if contraction.weight in waiting[group.name]:
                waiting[group.name].remove(contraction.weight)
                if not waiting[group.name]:
                    trials.append(_try(task, group, widths[group.name], moments, store))
        open_uses = set().union(
            *waiting.values(), *({c.weight for c in g.consumers} for g in groups if waiting[g.name])
        )
        moments = {use: item for use, item in moments.items() if use in open_uses}
        task.watch("surveying", done + 1, len(needed))
    return trials


def _try(
    task: Task,
    group: ChannelGroup,
    wanted: Widths,
    moments: Mapping[Use, Halves],
    store: Store,
) -> _Trials:
    trial = tried_out(task, group, wanted, moments)
    values, errors = [], []
    for width in trial.tried:
        sides, error = trial.fitted(width)
        errors.append(error)
        values.append(tuple({use: store.put(value) for use, value in side.items()} for side in sides))
    return _Trials(
        group=group,
        tried={width: trial.paths[0][width] for width in trial.tried},
        values=tuple(values),
        consumers=trial.consumers(errors),
        lossless=trial.lossless,
        one_way=trial.one_way,
    )


def _normalized(task: Task, trials: Sequence[_Trials], store: Store) -> list[_Trials]:
    """The trials with what normalisations have in them, where their statistics are of fewer channels."""
    concerned = [trial for trial in trials if task.graph.normalized(trial.group)]
    plans = [{trial.group.name: choice.support} for trial in concerned for choice in trial.tried.values()]
    found = iter(statistics_at(task, plans) if plans else [])
    done = []
    for trial in trials:
        if trial in concerned:
            values = tuple(
                tuple({**side, **{use: store.put(value) for use, value in own.items()}} for side in sides)
                for sides, own in zip(trial.values, [next(found) for _ in trial.tried], strict=True)
            )
            done.append(replace(trial, values=values))
        else:
            done.append(trial)
    return done


def _weakened(task: Task, group: ChannelGroup, wanted: Widths, store: Store) -> _Trials:
    """Fewer channels for a product of activations to sum over: the strongest stay, and nothing is fitted."""
    lossless = lossless_width(task.strengths[group.name].sum(axis=1), group.cells)
    tried, widths = wanted.about(lossless)
    choices = {width: strongest(task.strengths, group, width) for width in widths}
    values = []
    for width in tried:
        gone = np.setdiff1d(np.arange(group.width), np.array(choices[width].support, np.int64))
        constants: dict[Use, Array] = {}
        zero_channels(task.network, group, gone, constants)
        values.append(({use: store.put(value) for use, value in constants.items()},))
    return _Trials(
        group=group,
        tried={width: choices[width] for width in tried},
        values=tuple(values),
        consumers=Curve(tuple(widths), tuple(choices[width].error for width in widths)),
        lossless=lossless,
    )


def _first(network: Network, trial: _Trials) -> int:
    """Place of the first node that has other constants in a trial."""
    return min(network.position[use.node] for use in trial.values[0][0])


def _measure(task: Task, trials: Sequence[_Trials], store: Store, least: int) -> dict[str, GroupSensitivity]:
    """The sensitivities, on so many samples at least."""
    network = task.network
    tried = ((len(trial.values) * (0.5 if trial.one_way else 1.0), _first(network, trial)) for trial in trials)
    few = task.data.about(samples_for(task, tried, least=least))
    outputs = list(task.graph.observation.judged)
    stream = Stream(network, few, store, task.running.deciding)
    visible = Visible(few, task.running.mask)
    whole = visible.outputs([*stream.read(outputs)])
    parts = apart(parts_of(network, task.graph.observation, outputs), whole)
    reference = [parts.of(chunk) for chunk in whole]
    found: dict[str, GroupSensitivity] = {}
    ordered = sorted(trials, key=lambda trial: _first(network, trial))
    for done, trial in enumerate(ordered):
        place = _first(network, trial)
        stream.advance(place, made_before(network, outputs, place))
        run = stream.opened(outputs, list(trial.values[0][0]))
        judging = trial.judges(stream.chunks)
        runs = alongside(run, _fed(trial, judging), stream.side_by_side(len(judging)))
        errors = []
        for _ in trial.values:
            moved = visible.outputs([next(runs) for _ in judging], judging)
            errors.append(displacement([reference[chunk] for chunk in judging], [parts.of(chunk) for chunk in moved]))
        for held in chain.from_iterable(side.values() for values in trial.values for side in values):
            held.free()
        found[trial.group.name] = trial.sensitivity(errors)
        task.watch("measuring sensitivities", done + 1, len(trials))
    stream.close()
    return found


def _fed(trial: _Trials, chunks: Sequence[int]) -> Iterator[tuple[int, Mapping[Use, Array]]]:
    """Yield these chunks with every width's weights, those that were fitted to the other half of the samples."""
    for values in trial.values:
        sides = [{use: held.get() for use, held in side.items()} for side in values]
        yield from ((chunk, sides[(chunk + 1) % len(sides)]) for chunk in chunks)


def _judge(task: Task, trials: Sequence[_Trials], loss: Callable[[Plan], float]) -> dict[str, GroupSensitivity]:
    found: dict[str, GroupSensitivity] = {}
    for done, trial in enumerate(trials):
        name, losses = trial.group.name, []
        for choice, values in zip(trial.tried.values(), trial.values, strict=True):
            weights = {use: held.get() for use, held in values[0].items()}
            losses.append(loss(Plan(supports={name: choice.support}, weights=weights)))
            for held in chain.from_iterable(side.values() for side in values):
                held.free()
        found[name] = trial.sensitivity(losses)
        task.watch("measuring sensitivities", done + 1, len(trials))
    return found
