"""Trials of fewer channels: each half of the samples chooses its own and is fitted to them; the other half judges."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnx_subprune._typing import Array, Mask
from onnx_subprune.allocation import Curve, Room
from onnx_subprune.calibration.moments.halves import Halves
from onnx_subprune.graph.channels import ChannelGroup, Consumer, Use
from onnx_subprune.graph.contractions.bias import bias_of
from onnx_subprune.graph.contractions.ends import mean_of
from onnx_subprune.graph.contractions.reading import kernel_of
from onnx_subprune.pruning.budgets.lossless import lossless_width
from onnx_subprune.reconstruction.columns import problem_of, weighed
from onnx_subprune.reconstruction.crossfit import crossfit, pull_of
from onnx_subprune.reconstruction.fit import means
from onnx_subprune.reconstruction.pooling import families, pooled_halves, problems_of
from onnx_subprune.reconstruction.task import Task
from onnx_subprune.selection import Choice, Problem
from onnx_subprune.selection.linalg.ridge import SEARCHED
from onnx_subprune.selection.selector import presence_of

TRIED = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 7 / 8)
"""The widths at which the model is run, as shares of the full one."""
SELDOM = (1 / 8, 1 / 2, 7 / 8)
"""The same where there are so many groups that the model would be run very often."""
BETWEEN = (3 / 16, 3 / 8, 5 / 8, 3 / 4)
"""Widths in between, where the output follows the error of the consumers."""
COSTLY, MANY = 2048, 512
"""With so many columns in a consumer, and so many rows in a half, one half alone chooses and is fitted and the other one judges, at half the cost."""


def without_loss(curve: Curve, lossless: int) -> Curve:
    """Return the curve with errors of exactly 0 from this width on."""
    errors = zip(curve.widths, curve.errors, strict=True)
    return Curve(curve.widths, tuple(0.0 if width >= lossless else error for width, error in errors))


def trial_widths(room: Room, shares: Sequence[float] = TRIED + BETWEEN) -> tuple[int, ...]:
    """Allowed widths closest to the shares of the full one, ascending, without that itself; and none, where that is allowed."""
    narrower = [width for width in room.choices if width < room.width] or room.choices[:1]
    near = {min(narrower, key=lambda width: (abs(width - share * room.width), -width)) for share in shares}
    return tuple(sorted(near | {0} & set(room.choices)))


def completed(measured: Curve, consumers: Curve) -> Curve:
    """Return the curve of the output at all widths of the consumers' one, from some of them.

    Output and consumers err in proportion to some power of each other over short ways: logarithms are interpolated. Beyond the least and the largest that
    were measured they err in proportion.
    """
    known = dict(zip(measured.widths, measured.errors, strict=True))
    floor = 1e-30
    pairs = sorted(
        (np.log(max(error, floor)), np.log(max(known[width], floor)))
        for width, error in zip(consumers.widths, consumers.errors, strict=True)
        if width in known
    )
    at, values = (np.array(item) for item in zip(*pairs, strict=True))

    def likely(error: float) -> float:
        place = np.log(max(error, floor))
        beyond = place - np.clip(place, at[0], at[-1])
        return float(np.exp(np.interp(place, at, values) + beyond))

    errors = (
        known[width] if width in known else likely(error)
        for width, error in zip(consumers.widths, consumers.errors, strict=True)
    )
    return Curve(consumers.widths, tuple(errors))


@dataclass(frozen=True, slots=True, eq=False)
class Widths:
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


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """One group at some widths. tried: those to fit, of all `widths` that are looked at. paths: choices by width, one mapping a half that chooses.

    lossless: see `GroupSensitivity`. one_way: the first half alone chooses and is fitted, of two.
    """

    tried: Sequence[int]
    widths: Sequence[int]
    paths: Sequence[Mapping[int, Choice]]
    readers: Sequence["Reader"]
    lossless: int
    one_way: bool

    def fitted(self, width: int) -> tuple[list[dict[Use, Array]], float]:
        """Return the new constants of all consumers, one mapping a half that chose, and their held-out error on average."""
        found = [reader.refitted([path[width] for path in self.paths]) for reader in self.readers]
        sides = zip(*(values for values, _ in found), strict=True)
        joined = [{use: value for mine in side for use, value in mine.items()} for side in sides]
        return joined, float(np.mean([error for _, error in found]))

    def consumers(self, errors: Sequence[float]) -> Curve:
        """Return the consumers' curve at all widths from their held-out errors at those that were fitted; the choices tell what is between."""
        likely = [float(np.mean([path[width].error for path in self.paths])) for width in self.widths]
        return completed(Curve(tuple(self.tried), tuple(errors)), Curve(tuple(self.widths), tuple(likely)))


def tried_out(task: Task, group: ChannelGroup, wanted: Widths, moments: Mapping[Use, Halves]) -> Trial:
    """Let each half of the samples choose the channels of a group at the `wanted` widths."""
    halves = _problems(task, group, moments)
    lossless = lossless_width(presence_of(halves[0]), group.cells)
    if task.graph.normalized(group):  # what readers never see may count in a statistic
        lossless = group.width
    tried, widths = wanted.about(lossless)
    one_way = len(halves) > 1 and _wide(halves[0], group, moments)
    choosing = halves[:1] if one_way else halves
    blind = [[replace(item, presence=None) for item in problems] for problems in choosing]  # dead is known from both
    paths = [dict(zip(widths, task.choose(group, problems, widths), strict=True)) for problems in blind]
    readers = [Reader(task, group, family, moments, paths) for family in families(task.graph, group.consumers)]
    return Trial(tried, widths, paths, readers, lossless, one_way)


def _wide(problems: Sequence[Problem], group: ChannelGroup, moments: Mapping[Use, Halves]) -> bool:
    """True where to choose among the columns of a group is dear, and there are rows enough to do it on one half alone."""
    columns = max(problem.columns.size for problem in problems)
    rows = min(moments[consumer.weight].parts[0].count for consumer in group.consumers)
    return columns >= COSTLY and rows >= MANY


def _problems(task: Task, group: ChannelGroup, moments: Mapping[Use, Halves]) -> list[list[Problem]]:
    """The problems of the consumers on each half of the samples."""
    found = []
    for part in range(min(len(moments[consumer.weight].parts) for consumer in group.consumers)):
        problems, posed = [], problems_of(task.graph, group.consumers, moments)
        for consumer, halves in posed:
            kernel, weights = kernel_of(task.network, consumer.contraction)
            alive = np.ones(weights.shape[0] * weights.shape[1], bool)
            half, each = halves.centered[part], task.importance.get(consumer.weight)
            problems.append(problem_of(consumer, kernel, half, weights, alive, halves.shrinkage_of_half, each))
        counts = [halves.parts[part].count for _, halves in posed]
        found.append(weighed(problems, [consumer for consumer, _ in posed], counts, task.importance))
    return found


class Reader:
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
        empty = any(not choice.support for path in paths for choice in path.values())
        self._mean = mean_of(task.graph, contraction) if empty and len(family) == 1 else None
        self._pull, self._columns = None, 1.0
        if together is None or contraction.weight in task.graph.fixed:
            return
        aim = group.width * min(1 / 2, SEARCHED / self._prior.shape[1])
        some = [choice for choice in paths[0].values() if choice.support] or [*paths[0].values()]
        for choice in sorted(some, key=lambda choice: abs(len(choice.support) - aim))[:1]:
            alive = self._alive(choice)
            self._pull = pull_of(together, self._prior, alive, free_bias=self._free)
            self._columns = float(alive.sum())

    def refitted(self, choices: Sequence[Choice]) -> tuple[list[dict[Use, Array]], float]:
        """Return weights, and biases where there are some, of each half of the samples, with its choice alone to read; and the held-out error."""
        alive = [self._alive(choice) for choice in choices]
        pull = self._pull
        if pull is not None:
            pull = replace(pull, strength=pull.strength * float(alive[0].sum()) / self._columns)
        nothing = self._mean is not None and not any(choice.support for choice in choices)
        found = crossfit(self._halves, self._prior, alive, pull, free_bias=self._free or nothing)
        sides = []
        for half, weights in enumerate(found.weights):
            matrix, values = self._kernel.from_matrix(weights, self._old.dtype, self._old.shape), dict[Use, Array]()
            for consumer, bias, own in zip(self._family, self._biases, self._members, strict=True):
                values[consumer.weight] = matrix
                if bias is not None:
                    inside = bias.inside((self._prior.shape[0], self._prior.shape[2]))
                    values[bias.use] = bias.replaced(inside + means(own.parts[half], weights))
            if self._mean is not None:  # all widths of a group change the same constants
                mean = means(self._members[0].parts[half], weights).ravel() if nothing else np.zeros(weights.shape[2])
                values[self._mean] = mean.astype(self._old.dtype)
            sides.append(values)
        return sides, found.error

    def _alive(self, choice: Choice) -> Mask:
        """Which columns are left, (g, p)."""
        alive = np.ones(self._prior.shape[0] * self._prior.shape[1], bool)
        dropped = np.setdiff1d(np.arange(self._group.width), np.array(choice.support, np.int64))
        alive[self._kernel.columns_of(self._family[0].positions[dropped].ravel())] = False
        return alive.reshape(self._prior.shape[:2])
