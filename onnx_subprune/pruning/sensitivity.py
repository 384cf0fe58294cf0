"""What the model's output loses when one group alone gets narrower, its consumers refitted; no labels.

Pass one over the original model takes the moments of every consumer on each half of the samples; channels and refitted weights at a few
widths follow from those. Pass two, on fewer samples, runs what lies behind the group with each of these weights, which are inputs of one
session a group: every sample with weights that were fitted to the other half.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from onnx_subprune._typing import Array, Mask
from onnx_subprune.allocation import Curve, Room
from onnx_subprune.allocation.widths import GroupSensitivity
from onnx_subprune.calibration.data.masks import Visible
from onnx_subprune.calibration.moments.halves import Halves
from onnx_subprune.calibration.streaming.stream import Stream
from onnx_subprune.evaluation.divergence import displacement
from onnx_subprune.graph.channels import ChannelGroup, Consumer, Use
from onnx_subprune.graph.contractions.bias import bias_of
from onnx_subprune.graph.contractions.contraction import kernel_of
from onnx_subprune.graph.observation import made_before
from onnx_subprune.graph.surgery.surgery import Plan
from onnx_subprune.pruning.lossless import lossless_width
from onnx_subprune.reconstruction.columns import columns_of, problem_of
from onnx_subprune.reconstruction.crossfit import crossfit, pull_of
from onnx_subprune.reconstruction.fit import means
from onnx_subprune.reconstruction.pooling import families, pooled_halves, problems_of
from onnx_subprune.reconstruction.task import Task
from onnx_subprune.runtime.spill import Held, Store
from onnx_subprune.runtime.threads import alongside
from onnx_subprune.selection import Choice, Problem
from onnx_subprune.selection.selector import presence_of

TRIED = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 7 / 8)
"""The widths at which the model is run, as shares of the full one."""
BETWEEN = (3 / 16, 3 / 8, 5 / 8, 3 / 4)
"""Widths in between, where the output follows the error of the consumers."""
SAMPLES = 256
"""Samples of the second pass."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Trials:
    """Refitted weights of a group's consumers for the widths that are tried, held in the store, and the consumers' error at these and others.

    values: for each width, those that were fitted to each half of the samples. lossless: see `GroupSensitivity`.
    """

    group: ChannelGroup
    tried: Mapping[int, Choice]
    values: tuple[tuple[Mapping[Use, Held], ...], ...]
    consumers: Curve
    lossless: int

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
            output=_without_loss(output, self.lossless),
            consumers=_without_loss(self.consumers, self.lossless),
            lossless=self.lossless,
            least=least,
        )


def _without_loss(curve: Curve, lossless: int) -> Curve:
    """The curve with errors of exactly 0 from this width on."""
    errors = zip(curve.widths, curve.errors, strict=True)
    return Curve(curve.widths, tuple(0.0 if width >= lossless else error for width, error in errors))


def sensitivities(
    task: Task, rooms: Sequence[Room], loss: Callable[[Plan], float] | None = None
) -> dict[str, GroupSensitivity]:
    """Return the sensitivity of every room's group; `task.widths` and `task.refit` are not looked at.

    loss: what the model of a plan loses, in place of the displacement of its outputs.
    """
    task = task.drafted()
    groups = [task.graph.group(room.name) for room in rooms]
    every = {room.name: trial_widths(room) for room in rooms}
    tried = every if loss is not None else {room.name: trial_widths(room, TRIED) for room in rooms}
    widths = {room.name: _Widths(tried[room.name], every[room.name], room.choices) for room in rooms}
    with Store(task.memory) as store:
        trials = _prepare(task, groups, widths, store)
        return _measure(task, trials, store) if loss is None else _judge(task, trials, loss)


def trial_widths(room: Room, shares: Sequence[float] = TRIED + BETWEEN) -> tuple[int, ...]:
    """Allowed widths closest to the shares of the full one, ascending, without that itself; and none, where that is allowed."""
    near = {min(room.choices, key=lambda width: abs(width - share * room.width)) for share in shares}
    near |= {0} & set(room.choices)
    return tuple(sorted(near - {room.width})) or room.choices[:1]


def completed(measured: Curve, consumers: Curve) -> Curve:
    """Return the curve of the output at all widths of the consumers' one, from some of them.

    Output and consumers err in proportion to some power of each other over short ways: logarithms are interpolated.
    """
    known = dict(zip(measured.widths, measured.errors, strict=True))
    floor = 1e-30
    pairs = sorted(
        (np.log(max(error, floor)), np.log(max(known[width], floor)))
        for width, error in zip(consumers.widths, consumers.errors, strict=True)
        if width in known
    )
    at, values = zip(*pairs, strict=True)
    errors = (
        known[width] if width in known else float(np.exp(np.interp(np.log(max(error, floor)), at, values)))
        for width, error in zip(consumers.widths, consumers.errors, strict=True)
    )
    return Curve(consumers.widths, tuple(errors))


@dataclass(frozen=True, slots=True, eq=False)
class _Widths:
    """Widths to run the model at, to look at, and all that are allowed."""

    tried: Sequence[int]
    between: Sequence[int]
    choices: Sequence[int]

    def about(self, lossless: int) -> tuple[list[int], list[int]]:
        """Return the widths to run the model at and all to look at, where nothing is lost from `lossless` on: then the next one below is tried."""
        narrower = {width for width in self.choices if width < lossless}
        tried = {width for width in self.tried if width < lossless} or {self.choices[0]}
        if lossless < self.choices[-1] and narrower:
            tried |= {max(narrower)}
        free = {min((width for width in self.choices if width >= lossless), default=self.choices[-1])} - {
            self.choices[-1]
        }
        return sorted(tried), sorted({*self.between, *tried, *free})


def _prepare(task: Task, groups: Sequence[ChannelGroup], widths: Mapping[str, _Widths], store: Store) -> list[_Trials]:
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
    wanted: _Widths,
    moments: Mapping[Use, Halves],
    store: Store,
) -> _Trials:
    halves = _problems(task, group, moments)
    lossless = lossless_width(presence_of(halves[0]), group.cells)
    tried, widths = wanted.about(lossless)
    blind = [
        [replace(problem, presence=None) for problem in problems] for problems in halves
    ]  # what is dead is known from both
    paths = [dict(zip(widths, task.choose(group, problems, widths), strict=True)) for problems in blind]
    readers = [_Reader(task, group, family, moments, paths) for family in families(task.graph, group.consumers)]
    values, errors = [], []
    for width in tried:
        fitted = [reader.refitted([path[width] for path in paths]) for reader in readers]
        errors.append(float(np.mean([error for _, error in fitted])))
        sides = zip(*(values for values, _ in fitted), strict=True)
        values.append(tuple({use: store.put(value) for mine in side for use, value in mine.items()} for side in sides))
    likely = Curve(tuple(widths), tuple(float(np.mean([path[width].error for path in paths])) for width in widths))
    consumers = completed(Curve(tuple(tried), tuple(errors)), likely)
    chosen = {width: paths[0][width] for width in tried}
    return _Trials(group=group, tried=chosen, values=tuple(values), consumers=consumers, lossless=lossless)


def _problems(task: Task, group: ChannelGroup, moments: Mapping[Use, Halves]) -> list[list[Problem]]:
    """The problems of the consumers on each half of the samples."""
    found = []
    for part in range(min(len(moments[consumer.weight].parts) for consumer in group.consumers)):
        problems = []
        for consumer, halves in problems_of(task.graph, group.consumers, moments):
            kernel, weights = kernel_of(task.network, consumer.contraction)
            alive = np.ones(weights.shape[0] * weights.shape[1], bool)
            half = halves.parts[part].centered()
            problems.append(problem_of(consumer, kernel, half, weights, alive, halves.shrinkage_of_half))
        found.append(problems)
    return found


class _Reader:
    """Consumers that have one weight, refitted to some of their group's channels.

    The ridge is validated at one width, and grows with the number of columns.
    """

    def __init__(
        self,
        task: Task,
        group: ChannelGroup,
        family: Sequence[Consumer],
        moments: Mapping[Use, Halves],
        paths: Sequence[Mapping[int, Choice]],
    ) -> None:
        network, contraction = task.network, family[0].contraction
        self._group, self._family = group, family
        self._members = [moments[consumer.weight] for consumer in family]
        self._kernel, self._prior = kernel_of(network, contraction)
        self._old = network.array(contraction.weight_tensor)
        channels = self._prior.shape[0] * self._prior.shape[2]
        self._biases = [bias_of(network, item.contraction, self._kernel, channels) for item in family]
        together = pooled_halves(self._members, [bias is not None for bias in self._biases])
        self._halves, self._free = together or self._members[0], len(family) == 1 and self._biases[0] is not None
        self._pull, self._columns = None, 1.0
        if together is None or contraction.weight in task.graph.fixed:
            return
        for choice in sorted(paths[0].values(), key=lambda choice: abs(2 * len(choice.support) - group.width))[:1]:
            alive = self._alive(choice)
            self._pull = pull_of(together.parts, self._prior, alive, free_bias=self._free)
            self._columns = float(alive.sum())

    def refitted(self, choices: Sequence[Choice]) -> tuple[list[dict[Use, Array]], float]:
        """Return weights, and biases where there are some, of each half of the samples, with its choice alone to read; and the held-out error."""
        alive = [self._alive(choice) for choice in choices]
        pull = self._pull
        if pull is not None:
            pull = replace(pull, strength=pull.strength * float(alive[0].sum()) / self._columns)
        found = crossfit(self._halves.parts, self._prior, alive, pull, free_bias=self._free)
        sides = []
        for half, weights in enumerate(found.weights):
            matrix, values = self._kernel.from_matrix(weights, self._old.dtype, self._old.shape), dict[Use, Array]()
            for consumer, bias, own in zip(self._family, self._biases, self._members, strict=True):
                values[consumer.weight] = matrix
                if bias is not None:
                    inside = bias.inside((self._prior.shape[0], self._prior.shape[2]))
                    values[bias.use] = bias.replaced(inside + means(own.parts[half], weights))
            sides.append(values)
        return sides, found.error

    def _alive(self, choice: Choice) -> Mask:
        """Which columns are left, (g, p)."""
        alive = np.ones(self._prior.shape[0] * self._prior.shape[1], bool)
        dropped = np.setdiff1d(np.arange(self._group.width), np.array(choice.support, np.int64))
        alive[columns_of(self._family[0].positions[dropped].ravel(), self._kernel.taps)] = False
        return alive.reshape(self._prior.shape[:2])


def _measure(task: Task, trials: Sequence[_Trials], store: Store) -> dict[str, GroupSensitivity]:
    network = task.network
    few = task.data.about(SAMPLES)
    outputs = list(task.graph.observation.judged)
    stream = Stream(network, few, store, task.running)
    visible = Visible(few, task.running.mask)
    reference = visible.outputs([*stream.read(outputs)])
    found: dict[str, GroupSensitivity] = {}
    ordered = sorted(trials, key=lambda trial: min(network.position[c.node] for c in trial.group.consumers))
    for done, trial in enumerate(ordered):
        place = min(network.position[consumer.node] for consumer in trial.group.consumers)
        stream.advance(place, made_before(network, outputs, place))
        run = stream.opened(outputs, list(trial.values[0][0]))
        runs = alongside(run, _fed(trial, stream.chunks), stream.side_by_side(stream.chunks))
        errors = [displacement(reference, visible.outputs([next(runs) for _ in reference])) for _ in trial.values]
        for held in chain.from_iterable(side.values() for values in trial.values for side in values):
            held.free()
        found[trial.group.name] = trial.sensitivity(errors)
        task.watch("measuring sensitivities", done + 1, len(trials))
    stream.close()
    return found


def _fed(trial: _Trials, chunks: int) -> Iterator[tuple[int, Mapping[Use, Array]]]:
    """Yield every chunk with every width's weights, those that were fitted to the other half of the samples."""
    for values in trial.values:
        sides = [{use: held.get() for use, held in side.items()} for side in values]
        yield from ((chunk, sides[(chunk + 1) % len(sides)]) for chunk in range(chunks))


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
