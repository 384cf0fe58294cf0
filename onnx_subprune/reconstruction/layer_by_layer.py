"""The lock-step walk: original and pruned model advance together, groups are chosen and layers refitted as they come.

For every contraction in topological order, on the input that it has in the pruned model so far: choose the channels of the groups
that it is the first to read, then regress it on what it should put out. Three formulations (algorithms.md, section 1) differ in which
model input and target come from.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from onnx_subprune._typing import Array, Mask
from onnx_subprune.calibration.moments.halves import Halves
from onnx_subprune.calibration.moments.limits import oversized
from onnx_subprune.calibration.moments.regression import Regression
from onnx_subprune.calibration.streaming.executor import Lockstep, active
from onnx_subprune.calibration.streaming.original import Original
from onnx_subprune.calibration.streaming.target import Aim
from onnx_subprune.graph.channels import ChannelGroup, Consumer, Contraction, Use
from onnx_subprune.graph.contractions.contraction import kernel_of
from onnx_subprune.graph.surgery.masking import silence
from onnx_subprune.reconstruction.columns import alive_columns, problem_of
from onnx_subprune.reconstruction.domain import Domain, DomainError
from onnx_subprune.reconstruction.fit import Fit, Known, fit, living, plain, spread
from onnx_subprune.reconstruction.layer import Layer
from onnx_subprune.reconstruction.losses import Losses
from onnx_subprune.reconstruction.progress import State
from onnx_subprune.reconstruction.recurrence import Recurrence
from onnx_subprune.reconstruction.recurrent_gates import gates_of, input_of_gates
from onnx_subprune.reconstruction.refinement import Refitting
from onnx_subprune.reconstruction.requests import aimed, every_of, input_of
from onnx_subprune.reconstruction.settings import Asymmetric, Layerwise, Reconstruction, Refitted
from onnx_subprune.reconstruction.shared_weights import Member, SharedWeight
from onnx_subprune.reconstruction.targets import aim_of
from onnx_subprune.reconstruction.task import Task
from onnx_subprune.selection import Choice, Problem, conditioning


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
        self._original = original
        self._seconds = {"calibrate": 0.0, "select": 0.0, "refit": 0.0}
        self._state = State(task, models)
        self._state.changed.update(touched)
        self._refits: dict[Use, Refitted] = {}

    def run(self) -> Reconstruction:
        """Walk."""
        state = self._state
        self._silence()
        for place, contraction in enumerate(state.order):
            if self._concerned(contraction):
                self._step(place, contraction)
            self._task.watch("pruning", place + 1, len(state.order))
        return Reconstruction(choices=state.choices, weights=state.weights, refits=self._refits, seconds=self._seconds)

    def _silence(self) -> None:
        """Let the pruned model go without the channels that only products of activations sum over: they are chosen beforehand."""
        values: dict[Use, Array] = {}
        for group in self._groups:
            if group.product is not None and group.name in self._state.choices:
                gone = np.setdiff1d(np.arange(group.width), np.array(self._state.choices[group.name].support, np.int64))
                silence(self._task.network, group, gone, values)
        if not isinstance(self._task.formulation, Layerwise):
            for use, value in values.items():
                self._models.override(use, value)

    def _concerned(self, contraction: Contraction) -> bool:
        """True if the contraction loses inputs, or stands behind a change."""
        loses = contraction.weight in self._lost or any(
            part.axis == contraction.rows for group in self._groups for part in group.slices
        )
        refit = self._task.refit
        everywhere = refit is not None and refit.everywhere and isinstance(self._task.formulation, Asymmetric)
        behind = everywhere and bool(self._state.changed) and self._behind(contraction)
        return loses or (behind and not self._oversized(contraction))

    def _oversized(self, contraction: Contraction) -> bool:
        return oversized(self._task.graph, self._task.network, contraction, self._task.data.samples)

    def _behind(self, contraction: Contraction) -> bool:
        chosen, _ = self._task.network.ancestors([contraction.input.tensor], ())
        changed = {self._task.network.position[node] for node in self._state.changed}
        return not changed.isdisjoint(chosen)

    def _step(self, place: int, contraction: Contraction) -> None:
        state, task, clock = self._state, self._task, self._task.clock
        start = clock()
        members = task.graph.together(contraction)
        if task.refit is not None and (len(members) > 1 or contraction.weight in task.graph.fixed):
            if contraction.weight == members[0].weight:
                self._refit_together(members)
                self._seconds["refit"] += clock() - start
            return
        if contraction.recurs and task.refit is not None and self._original is not None:
            self._refit_recurrence(place, contraction)
            self._seconds["refit"] += clock() - start
            return
        layer = state.layer(contraction)
        aim = self._aim(place, layer)
        self._models.advance(state.pairing.anchor(contraction), [contraction.input.tensor])
        alive = state.alive(layer)
        halves = self._moments(layer, aim, place, alive)
        calibrated = clock()
        about = None
        if self._chooses(contraction) or task.refit is None:
            if aim is not None and self._chooses(contraction):
                halves = active(self._models, aimed(task, layer, aim, alive), halves)
            if layer.kernel.groups == 1:
                halves = [spread(half, alive) for half in halves]
            both = Halves.of(halves)
            about = both.whole.centered() if layer.bias is not None else both.whole
            self._choose(layer, about, both.shrinkage)
            alive = state.alive(layer)
        selected = clock()
        known = Known(task.memory // 8, task.running.cores)
        if task.refit is None:
            assert about is not None
            found = plain(about, layer.prior, alive)
        else:
            about = None
            found = self._fitted(layer, aim, halves, alive, known)
        domain = Domain(state, layer)
        state.take(layer, found)
        rows = int(sum(half.count for half in halves))
        del halves  # their grams take room that more fits need
        left = None if found.exact else domain.left()
        settled = found
        if left is None and not found.exact:
            settled = Refitting(state, layer, aim).settled(found, known)
            left = domain.left() if settled is not found else None
        if left is not None:
            found = settled = self._kept(layer, domain, found, alive, left)
        self._refits[contraction.weight] = Refitted(
            node=contraction.node,
            fitted_error=found.fitted_error,
            heldout_error=found.heldout_error,
            plain_error=found.plain_error,
            refitted=found.refitted or settled.refitted,
            rows=rows,
            columns=int(alive.sum()) // layer.kernel.groups,
            domain=left,
        )
        if contraction.recurs:  # what is held followed from other weights
            self._models.advance(state.pairing.anchor(contraction))
        ended = clock()
        for name, seconds in (
            ("calibrate", calibrated - start),
            ("select", selected - calibrated),
            ("refit", ended - selected),
        ):
            self._seconds[name] += seconds

    def _kept(self, layer: Layer, domain: Domain, found: Fit, alive: Mask, left: str) -> Fit:
        """Return the old weights, sliced, which the pruned model has then; DomainError if `left` is no finite number with these either."""
        domain.back()
        mask = alive.reshape(layer.prior.shape[:2])[:, :, None]
        error = found.plain_error
        kept = replace(found, weights=np.where(mask, layer.prior, 0.0), bias=None, refitted=False)
        kept = replace(kept, fitted_error=error, heldout_error=error)
        self._state.take(layer, kept)
        if domain.left() is not None:
            raise self._too_narrow(layer, left)
        return kept

    def _too_narrow(self, layer: Layer, left: str) -> DomainError:
        """What is wrong with the widths of the groups that `layer` reads, or, if there are none, of those that are chosen before it."""
        mine = [g.name for g in self._groups if any(c.weight == layer.contraction.weight for c in g.consumers)]
        names = mine or [group.name for group in self._groups if group.name in self._state.choices]
        return DomainError(
            f"{layer.node}: with fewer channels {left} behind it puts out something else than finite numbers, whatever the weights: keep more of them, "
            f"or all (--exclude {' '.join(names) or layer.node})",
            names,
            f"with fewer {left} behind {layer.node} puts out something else than finite numbers",
        )

    def _fitted(self, layer: Layer, aim: Aim | None, halves: list[Regression], alive: Mask, known: Known) -> Fit:
        """Return new weights, or the old ones, sliced, where these lose nothing or less."""
        losses = Losses(self._state, layer, aim, alive)
        sliced = losses.sliced(halves)
        if sliced is not None and sliced.exact:
            return sliced
        if layer.kernel.groups == 1:
            halves[:] = [living(half, alive) for half in halves]
        found = fit(halves, layer.prior, alive, free_bias=layer.bias is not None, known=known)
        return found if sliced is None else losses.better(found, sliced)

    def _refit_recurrence(self, place: int, contraction: Contraction) -> None:
        """Refit the weight with which a layer reads its own states, together with that for its data where it can be."""
        layer = self._state.layer(contraction)
        aim = self._aim(place, layer)
        assert aim is not None, "what shares its weight is refitted together"
        data = input_of_gates(self._state, contraction)
        beside = None if data is None else self._state.layer(data)
        target = None if beside is None else self._aim(place, beside)
        pair = None if beside is None or target is None else (beside, target)
        tensors = [aim.tensor] if pair is None else [aim.tensor, pair[1].tensor]
        self._models.advance_original(self._where(place, aim), also=tensors)
        self._refits[contraction.weight] = Recurrence(self._state, layer, aim, pair).settle()

    def _refit_together(self, contractions: Sequence[Contraction]) -> None:
        """Refit the weight of these contractions, of which the walk stands before the first; see `shared_weights`."""
        state = self._state
        first = state.order.index(contractions[0])
        layers = [state.layer(item) for item in contractions]
        members = [Member(layer=layer, aim=self._aim(first, layer)) for layer in layers]
        tensors = [member.aim.tensor for member in members if member.aim is not None]
        if tensors:
            here = self._task.network.producer[tensors[0]] + 1
            self._models.advance_original(min(self._after(first), here), also=tensors)
        fixed = contractions[0].weight in self._task.graph.fixed
        for contraction, found in zip(
            contractions, SharedWeight(state, members, refit=not fixed).settle(), strict=True
        ):
            self._refits[contraction.weight] = found

    def _after(self, place: int) -> int:
        """Where the contraction that follows the one at this place of the order stands."""
        order, network = self._state.order, self._task.network
        return network.position[order[place + 1].node] if place + 1 < len(order) else len(network.nodes)

    def _where(self, place: int, aim: Aim) -> int:
        """Where the original shows the tensor of an aim of the contraction at this place."""
        network, contraction = self._task.network, self._state.order[place]
        if aim.product is not None and not contraction.recurs:
            return network.position[contraction.node]
        return min(self._after(place), network.producer[aim.tensor] + 1)

    def _aim(self, place: int, layer: Layer) -> Aim | None:
        """What `layer` should put out while all from this place of the order on may still change; None where that is what its old weights make of its input."""
        task, order = self._task, self._state.order
        if not isinstance(task.formulation, Asymmetric):
            return None
        if layer.contraction.internal:
            served = len(task.graph.together(layer.contraction)) > 1 or layer.contraction.weight in task.graph.fixed
            return None if served or self._original is None else gates_of(self._original, layer)
        residual = task.refit is not None and task.refit.residual
        later, observation = order[place:], task.graph.observation
        return aim_of(task.network, layer.contraction, later, observation, residual=residual, addend=layer.addend)

    def _moments(self, layer: Layer, aim: Aim | None, place: int, alive: Mask) -> list[Regression]:
        """Moments of the even and of the odd chunks; of the columns `alive` alone, where there is one convolution group."""
        weights = layer.prior
        if aim is None:
            inside = (
                layer.bias.inside((weights.shape[0], weights.shape[2]))
                if layer.bias is not None
                else np.zeros_like(weights[:, 0], np.float64)
            )
            halves = self._models.collect(input_of(layer.contraction, layer.kernel))
            return [half.moments().with_target(weights).shifted(inside) for half in halves]
        # what follows from the aim alone need not be held beside it
        self._models.advance_original(self._where(place, aim), also=[aim.tensor])
        return self._state.halves(aimed(self._task, layer, aim, alive))

    def _chooses(self, contraction: Contraction) -> bool:
        """True if the channels of a group are to be chosen on this contraction's moments."""
        return any(
            consumer.weight == contraction.weight and group.name not in self._state.choices
            for group in self._groups
            for consumer in group.consumers
        )

    def _choose(self, layer: Layer, moments: Regression, shrinkage: float) -> None:
        choices = self._state.choices
        for group in self._groups:
            mine = [consumer for consumer in group.consumers if consumer.weight == layer.contraction.weight]
            if mine and group.name not in choices:
                choices[group.name] = self._chosen(group, mine[0], layer, moments, shrinkage)
                self._cut(group, layer)

    def _cut(self, group: ChannelGroup, reader: Layer) -> None:
        """Let the pruned model go without the channels that are dropped, where they lie ahead."""
        state, pairing = self._state, self._state.pairing
        way = pairing.way(reader.contraction)
        if way is not None:
            support = state.choices[group.name].support
            cut = pairing.cut(way, reader, state.layer(way.producer), group, support)
            if cut is not None:
                self._models.cut(cut)

    def _chosen(
        self, group: ChannelGroup, consumer: Consumer, layer: Layer, moments: Regression, shrinkage: float
    ) -> Choice:
        task = self._task
        problems = [problem_of(consumer, layer.kernel, moments, layer.prior, self._state.alive(layer), shrinkage)]
        problems += [self._neighbour(other) for other in group.consumers if other is not consumer]  # of the same tensor
        choice = task.choose(group, problems, [task.widths[group.name]])[0]
        return replace(choice, conditioning=conditioning(problems, choice.support), data=1.0 - shrinkage)

    def _neighbour(self, consumer: Consumer) -> Problem:
        contraction = consumer.contraction
        kernel, weights = kernel_of(self._task.network, contraction)
        asymmetric = isinstance(self._task.formulation, Asymmetric)
        every = every_of(self._task, contraction, weights.shape[1]) if asymmetric else 1
        ask = input_of(contraction, kernel, every)
        parts = [half.moments().with_target(weights) for half in self._models.collect(ask)]
        halves = Halves.of(active(self._models, ask, parts))
        alive = alive_columns(self._task.graph, self._state.choices, contraction, kernel, weights)
        return problem_of(consumer, kernel, halves.whole.centered(), weights, alive, halves.shrinkage)
