"""The lock-step walk: original and pruned model advance together, groups are chosen and layers refitted as they come.

For every contraction in topological order, on the input that it has in the pruned model so far: choose the channels of the groups
that it is the first to read, then regress it on what it should put out. Three formulations (algorithms.md, section 1) differ in which
model input and target come from.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from onnx_subprune._typing import Array
from onnx_subprune.calibration.moments.halves import Halves
from onnx_subprune.calibration.moments.limits import oversized
from onnx_subprune.calibration.streaming.executor import Lockstep, active
from onnx_subprune.calibration.streaming.target import Aim, Original
from onnx_subprune.graph.channels import ChannelGroup, Contraction, Use
from onnx_subprune.graph.surgery.masking import zero_channels
from onnx_subprune.reconstruction.aims import Aims, Normalizations
from onnx_subprune.reconstruction.choosing import Choosing
from onnx_subprune.reconstruction.domain import Domain
from onnx_subprune.reconstruction.fit import Fit, Known, fit, living, plain, spread
from onnx_subprune.reconstruction.layer import Layer
from onnx_subprune.reconstruction.losses import Losses
from onnx_subprune.reconstruction.progress import State
from onnx_subprune.reconstruction.recurrence import Recurrence
from onnx_subprune.reconstruction.recurrent_gates import gated, gates_of, input_of_gates, reads_zeros
from onnx_subprune.reconstruction.refinement import Refitting
from onnx_subprune.reconstruction.settings import Reconstruction, Refitted
from onnx_subprune.reconstruction.shared_weights import Member, SharedWeight
from onnx_subprune.reconstruction.task import Task, aimed


class Walk:
    """One pass. lost: the weights of contractions that lost inputs before it. original: what the pruned model is compared with, if anything.

    touched: nodes that make what products of activations have lost.
    """

    def __init__(
        self,
        task: Task,
        groups: Sequence[ChannelGroup],
        models: Lockstep,
        lost: frozenset[Use] = frozenset(),
        original: Original | None = None,
        touched: frozenset[str] = frozenset(),
    ) -> None:
        self._task, self._groups, self._models, self._lost = task, groups, models, lost
        self._original, self._clock = original, _Clock(task.clock)
        self._state = State(task, models)
        self._state.changed.update(touched)
        self._normalizations = Normalizations(self._state, original, lost)
        self._aims = Aims(self._state, original, self._normalizations)
        self._choosing = Choosing(self._state, groups)
        self._refits: dict[Use, Refitted] = {}

    def run(self) -> Reconstruction:
        """Walk."""
        state = self._state
        self._mask()
        for place, contraction in enumerate(state.order):
            with self._clock("refit"):
                self._normalizations.fit(contraction)
            if self._concerned(contraction):
                self._step(place, contraction)
            self._task.watch("pruning", place + 1, len(state.order))
        seconds = self._clock.seconds
        return Reconstruction(choices=state.choices, weights=state.weights, refits=self._refits, seconds=seconds)

    def _mask(self) -> None:
        """Let the pruned model go without the channels that only products of activations sum over, chosen beforehand, or that statistics are taken of."""
        values: dict[Use, Array] = dict(self._normalizations.begin())
        for group in self._groups:
            if group.product is not None and group.name in self._state.choices:
                gone = np.setdiff1d(np.arange(group.width), np.array(self._state.choices[group.name].support, np.int64))
                zero_channels(self._task.network, group, gone, values)
        if self._task.formulation.follows:
            for use, value in values.items():
                self._models.override(use, value)

    def _concerned(self, contraction: Contraction) -> bool:
        """True if the contraction loses inputs, or stands behind a change, and somebody reads what it makes."""
        if contraction.node in self._task.gone:
            return False
        loses = contraction.weight in self._lost or any(
            part.axis == contraction.rows for group in self._groups for part in group.slices
        )
        refit = self._task.refit
        everywhere = refit is not None and refit.everywhere and self._task.formulation.repairs
        behind = everywhere and bool(self._state.changed) and self._behind(contraction)
        return loses or (behind and not self._oversized(contraction))

    def _oversized(self, contraction: Contraction) -> bool:
        return oversized(self._task.graph, self._task.network, contraction, self._task.data.samples)

    def _behind(self, contraction: Contraction) -> bool:
        chosen, _ = self._task.network.ancestors([contraction.input.tensor], ())
        changed = {self._task.network.position[node] for node in self._state.changed}
        return not changed.isdisjoint(chosen)

    def _step(self, place: int, contraction: Contraction) -> None:
        """Refit one contraction, or all that share its weight, in the way that its kind asks for."""
        task = self._task
        members = task.graph.together(contraction)
        recurring = gated(task.network, task.graph, contraction) if self._original is not None else None
        if task.refit is not None and recurring is not None:
            with self._clock("refit"):
                self._refit_recurrence(place, recurring)
        elif task.refit is not None and (len(members) > 1 or contraction.weight in task.graph.fixed):
            if contraction.weight == members[0].weight:
                with self._clock("refit"):
                    self._refit_together(members)
        elif task.refit is not None and contraction.recurs and self._original is not None:
            with self._clock("refit"):
                self._refit_recurrence(place, contraction)
        else:
            self._refit(place, contraction)

    def _refit(self, place: int, contraction: Contraction) -> None:
        """Collect, choose, fit, take, refine."""
        state, task = self._state, self._task
        with self._clock("calibrate"):
            layer = state.layer(contraction)
            aim = self._aims.of(place, layer)
            self._models.advance(state.pairing.anchor(contraction), [contraction.input.tensor])
            halves = self._moments(place, layer, aim)
        with self._clock("select"):
            chooses, alive = bool(self._choosing.open(contraction)), state.alive(layer)
            sliced_alone = task.refit is None or reads_zeros(task.network, task.graph, contraction)
            if aim is not None and chooses:
                halves = active(self._models, aimed(task, layer, aim, alive), halves)
            if layer.kernel.groups == 1 and (chooses or sliced_alone):
                halves = halves.map(lambda half: spread(half, alive))
            if chooses:
                self._choosing.choose(layer, halves)
            alive = state.alive(layer)
        with self._clock("refit"):
            known, losses = Known(task.memory // 8, task.running.cores), Losses(state, layer, aim, alive)
            if sliced_alone:
                found = plain(halves.about(free_bias=layer.bias is not None), layer.prior, alive)
                found = replace(found, exact=task.refit is not None)
            else:
                sliced = losses.sliced(halves)
                if layer.kernel.groups == 1:  # grams of all columns take room
                    halves = halves.map(lambda half: living(half, alive))
                found = _fitted(layer, halves, losses, sliced, known)
            domain, rows = Domain(state, layer), int(halves.count)
            state.take(layer, found)
            del halves  # more fits need their room
            found, left = self._settled(layer, aim, domain, found, known)
            columns = int(alive.sum()) // layer.kernel.groups
            self._refits[contraction.weight] = found.summary(layer.node, rows, columns, left)
            if contraction.recurs:  # what is held followed from other weights
                self._models.advance(state.pairing.anchor(contraction))

    def _settled(
        self, layer: Layer, aim: Aim | None, domain: Domain, found: Fit, known: Known
    ) -> tuple[Fit, str | None]:
        """Refine `found`, which the pruned model has; return it, and the operator behind it that other weights than the old ones take out of its domain."""
        if found.exact:
            return found, None
        settled, left = found, domain.left(found)
        if left is None:
            settled = Refitting(self._state, layer, aim).settled(found, known)
            left = domain.left(settled) if settled is not found else None
        if left is not None:
            return domain.kept(found, left, self._groups), left
        return replace(found, refitted=found.refitted or settled.refitted), None

    def _refit_recurrence(self, place: int, contraction: Contraction) -> None:
        """Refit the weight with which a layer reads its own states, together with that for its data where it can be."""
        layer = self._state.layer(contraction)
        assert self._original is not None, "it has the gates"
        aim = gates_of(self._original, layer)
        data = input_of_gates(self._task.network, self._task.graph, contraction)
        beside = None if data is None else self._state.layer(data)
        target = None if beside is None else self._aims.of(place, beside)
        pair = None if beside is None or target is None else (beside, target)
        self._aims.show(place, *([aim] if pair is None else [aim, pair[1]]))
        whole = None
        if not contraction.observed and beside is not None:
            whole = gates_of(self._original, layer, whole=True), gates_of(self._original, beside, whole=True)
        self._refits[contraction.weight] = Recurrence(self._state, layer, aim, pair, whole).settle()

    def _refit_together(self, contractions: Sequence[Contraction]) -> None:
        """Refit the weight of these contractions, of which the walk stands before the first; see `shared_weights`."""
        state = self._state
        first = state.order.index(contractions[0])
        layers = [state.layer(item) for item in contractions]
        members = [Member(layer=layer, aim=self._aims.of(first, layer)) for layer in layers]
        aims = [member.aim for member in members if member.aim is not None]
        if aims:
            self._aims.show(first, *aims)
        fixed = contractions[0].weight in self._task.graph.fixed
        found = SharedWeight(state, members, refit=not fixed).settle()
        self._refits.update(zip([item.weight for item in contractions], found, strict=True))

    def _moments(self, place: int, layer: Layer, aim: Aim | None) -> Halves:
        """Moments of the columns that are not dropped, where there is one convolution group."""
        if aim is not None:
            self._aims.show(place, aim)
            return self._state.halves(aimed(self._task, layer, aim, self._state.alive(layer)))
        return self._state.own(layer)


def _fitted(layer: Layer, halves: Halves, losses: Losses, sliced: Fit | None, known: Known) -> Fit:
    """New weights, or the old ones, sliced, where these lose nothing or less; `sliced` are these, where they lose next to nothing."""
    if sliced is not None and sliced.exact:
        return sliced
    found = fit(halves, layer.prior, losses.alive, free_bias=layer.bias is not None, known=known)
    return found if sliced is None else losses.better(found, sliced)


class _Clock:
    """Seconds that the parts of the walk take."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.seconds = {"calibrate": 0.0, "select": 0.0, "refit": 0.0}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        start = self._now()
        yield
        self.seconds[part] += self._now() - start
