"""The lock-step walk: original and pruned model advance together, groups are chosen and layers refitted as they come.

For every contraction in topological order, on the input that it has in the pruned model so far: choose the channels of the groups
that it is the first to read, then regress it on what it should put out. Three formulations (algorithms.md, section 1) differ in which
model input and target come from.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.asking import aimed, drafted, input_of
from onnx_subprune.calibration.alongside import alongside
from onnx_subprune.calibration.ask import Ask
from onnx_subprune.calibration.equations import Fit, Known, fit, fit_again, living, plain, problem_of, spread
from onnx_subprune.calibration.lockstep import Lockstep, united
from onnx_subprune.calibration.regression import Regression
from onnx_subprune.calibration.store import Shelf
from onnx_subprune.calibration.targets import Aim, aim_of
from onnx_subprune.calibration.ways import Way
from onnx_subprune.choosing import alive_columns
from onnx_subprune.graph.channels import ChannelGroup, Consumer, Contraction, Use
from onnx_subprune.joint import WORTH, Joint, Pruned
from onnx_subprune.layer import Layer, layer_of
from onnx_subprune.pairing import Pairing
from onnx_subprune.restriction import oversized
from onnx_subprune.selection import Choice, Problem, conditioning
from onnx_subprune.task import Asymmetric, Layerwise, Reconstruction, Refitted, Task, kernel_of

Array = NDArray[np.generic]
Float64 = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Walk:
    """One pass. `_choices` and `_weights` grow as it goes. lost: labels of contractions that lost inputs before it."""

    def __init__(
        self,
        task: Task,
        groups: Sequence[ChannelGroup],
        models: Lockstep,
        lost: frozenset[str] = frozenset(),
    ) -> None:
        self._task, self._groups, self._models, self._lost = task, groups, models, lost
        self._seconds = {"calibrate": 0.0, "select": 0.0, "refit": 0.0}
        self._choices = dict(task.choices)
        self._weights = Shelf[Use](task.memory // 8)
        self._refits: list[Refitted] = []
        self._order = sorted(task.graph.contractions, key=lambda item: task.network.position[item.node])
        self._pairing = Pairing(task, self._order, self._weights)

    def run(self) -> Reconstruction:
        """Walk."""
        for place, contraction in enumerate(self._order):
            if self._concerned(contraction):
                self._step(place, contraction)
            self._task.watch("pruning", place + 1, len(self._order))
        return Reconstruction(
            choices=self._choices, weights=self._weights, refits=tuple(self._refits), seconds=self._seconds
        )

    def _concerned(self, contraction: Contraction) -> bool:
        """True if the contraction loses inputs, or stands behind a change."""
        loses = contraction.node in self._lost or any(
            part.axis == contraction.rows for group in self._groups for part in group.slices
        )
        refit = self._task.refit
        everywhere = refit is not None and refit.everywhere and isinstance(self._task.formulation, Asymmetric)
        behind = everywhere and bool(self._weights) and self._behind(contraction)
        return loses or (behind and not self._oversized(contraction))

    def _oversized(self, contraction: Contraction) -> bool:
        return oversized(self._task.graph, self._task.network, contraction, self._task.data.samples)

    def _behind(self, contraction: Contraction) -> bool:
        chosen, _ = self._task.network.ancestors([contraction.input.tensor], ())
        changed = {self._task.network.position[use.node] for use in self._weights}
        return not changed.isdisjoint(chosen)

    def _step(self, place: int, contraction: Contraction) -> None:
        task, clock = self._task, self._task.clock
        start = clock()
        layer = self._layer(contraction)
        drafts = self._drafts(layer)
        self._models.advance(self._pairing.anchor(contraction), [] if drafts else [contraction.input.tensor])
        later = self._order[place + 1 :]
        rank = len(task.graph.observation.shapes[contraction.output.tensor])
        residual = task.refit is not None and task.refit.residual
        aim = aim_of(task.network, contraction, later, rank, residual=residual)
        alive = self._alive(layer)
        halves = self._moments(layer, aim, place, alive)
        calibrated = clock()
        about = None
        if self._chooses(contraction) or task.refit is None:
            if layer.kernel.groups == 1:
                halves = [spread(half, alive) for half in halves]
            about = halves[0] + halves[1] if len(halves) == 2 else halves[0]
            about = about.centered() if layer.bias is not None else about
            self._choose(layer, about)
            alive = self._alive(layer)
        selected = clock()
        known = Known(task.memory // 8, task.running.cores)
        if task.refit is None:
            assert about is not None
            found = plain(about, layer.prior, alive)
        else:
            about = None
            if layer.kernel.groups == 1:
                halves = [living(half, alive) for half in halves]
            found = fit(halves, layer.prior, alive, free_bias=layer.bias is not None, known=known)
        self._take(layer, found)
        del halves  # their grams take room that more fits need
        settled, rounds = found, self._rounds(layer, aim)
        way = self._pairing.way(contraction)
        if way is not None and alive.any():
            first = self._renew(layer, aim, found, alive, max(0, rounds - 1), known)
            settled, known = self._refit_jointly(layer, way, aim, first, known)
            rounds = min(rounds, 1) if settled is first else 0  # the refits with the producer renew it too
        settled = self._renew(layer, aim, settled, alive, rounds, known)
        self._pairing.remember(contraction, known.whole)
        self._refits.append(
            Refitted(
                node=contraction.node,
                fitted_error=found.fitted_error,
                heldout_error=found.heldout_error,
                plain_error=found.plain_error,
                refitted=found.refitted or settled.refitted,
            )
        )
        ended = clock()
        for name, seconds in (
            ("calibrate", calibrated - start),
            ("select", selected - calibrated),
            ("refit", ended - selected),
        ):
            self._seconds[name] += seconds

    def _layer(self, contraction: Contraction) -> Layer:
        """The contraction as it is by now; where targets are those of the original weights, dropped outputs count as the others do."""
        task = self._task
        choices = self._choices if isinstance(task.formulation, Asymmetric) else {}
        return layer_of(task.network, task.graph, contraction, choices)

    def _alive(self, layer: Layer) -> Mask:
        return alive_columns(self._task.graph, self._choices, layer.contraction, layer.kernel, layer.weights)

    def _moments(self, layer: Layer, aim: Aim, place: int, alive: Mask) -> list[Regression]:
        """Moments of the even and of the odd chunks; of the columns `alive` alone, where there is one convolution group."""
        network, weights = self._task.network, layer.weights
        if not isinstance(self._task.formulation, Asymmetric):
            inside = (
                layer.bias.inside((weights.shape[0], weights.shape[2]))
                if layer.bias is not None
                else np.zeros_like(weights[:, 0], np.float64)
            )
            halves = self._models.collect(input_of(layer.contraction, layer.kernel))
            return [half.moments().with_target(weights).shifted(inside) for half in halves]
        after = network.position[self._order[place + 1].node] if place + 1 < len(self._order) else len(network.nodes)
        after = min(
            after, network.producer[aim.tensor] + 1
        )  # what follows from the aim alone need not be held beside it
        self._models.advance_original(after, also=[aim.tensor])
        return self._collected(
            aimed(self._task, layer, aim, alive, first=self._pairing.way(layer.contraction) is not None)
        )

    def _collected(self, ask: Ask) -> list[Regression]:
        """Moments of the even and of the odd chunks."""
        return [
            *alongside(
                lambda half: half.moments(), ((half,) for half in self._models.collect(ask)), self._task.running.cores
            )
        ]

    def _whole(self, ask: Ask) -> Regression:
        """Moments of all chunks."""
        return united(self._models.collect(ask)).moments()

    def _drafts(self, layer: Layer) -> bool:
        """True if fits before the last look at some of the samples only."""
        return self._pairing.way(layer.contraction) is not None and drafted(self._task, layer) > 1

    def _chooses(self, contraction: Contraction) -> bool:
        """True if the channels of a group are to be chosen on this contraction's moments."""
        return any(
            consumer.node == contraction.node and group.name not in self._choices
            for group in self._groups
            for consumer in group.consumers
        )

    def _choose(self, layer: Layer, moments: Regression) -> None:
        for group in self._groups:
            mine = [consumer for consumer in group.consumers if consumer.node == layer.node]
            if mine and group.name not in self._choices:
                self._choices[group.name] = self._chosen(group, mine[0], layer, moments)
                self._cut(group, layer)

    def _cut(self, group: ChannelGroup, reader: Layer) -> None:
        """Let the pruned model go without the channels that are dropped, where they lie ahead."""
        way = self._pairing.way(reader.contraction)
        if way is not None:
            support = self._choices[group.name].support
            cut = self._pairing.cut(way, reader, self._layer(way.producer), group, support)
            if cut is not None:
                self._models.cut(cut)

    def _chosen(self, group: ChannelGroup, consumer: Consumer, layer: Layer, moments: Regression) -> Choice:
        task = self._task
        problems = [problem_of(consumer, layer.kernel, moments, layer.prior, self._alive(layer))]
        problems += [self._neighbour(other) for other in group.consumers if other is not consumer]  # of the same tensor
        choice = task.choose(group, problems, [task.widths[group.name]])[0]
        return replace(choice, conditioning=conditioning(problems, choice.support))

    def _neighbour(self, consumer: Consumer) -> Problem:
        contraction = consumer.contraction
        kernel, weights = kernel_of(self._task.network, contraction)
        sums = united(self._models.collect(input_of(contraction, kernel)))
        moments = sums.moments().with_target(weights).centered()
        alive = alive_columns(self._task.graph, self._choices, contraction, kernel, weights)
        return problem_of(consumer, kernel, moments, weights, alive)

    def _take(self, layer: Layer, found: Fit) -> None:
        """Put new weights and bias into the pruned model."""
        for use, value in layer.constants(found, self._task.network).items():
            self._put(use, value)

    def _put(self, use: Use, value: Array) -> None:
        self._weights[use] = value
        if not isinstance(self._task.formulation, Layerwise):
            self._models.override(use, value)

    def _rounds(self, layer: Layer, aim: Aim) -> int:
        """How often the target is to be renewed."""
        task = self._task
        tells = aim.flat is not None and layer.bias is not None and isinstance(task.formulation, Asymmetric)
        return task.refit.rounds if tells and task.refit is not None else 0

    def _renew(self, layer: Layer, aim: Aim, found: Fit, alive: Mask, rounds: int, known: Known) -> Fit:
        """Targets that differ from what the layer now puts out only where the activation behind sees it."""
        if not rounds:
            return found
        first = self._pairing.way(layer.contraction) is not None
        ask = aimed(self._task, layer, aim, alive, renew=True, with_gram=False, first=first)
        for _ in range(rounds):
            found = fit_again(self._whole(ask), found, alive, known)
            self._take(layer, found)
        return found

    def _refit_jointly(self, reader: Layer, way: Way, aim: Aim, found: Fit, known: Known) -> tuple[Fit, Known]:
        """Refit a contraction, fitted so far with `known`, together with the producer of its input; see `joint`."""
        task, alive = self._task, self._alive(reader)
        drafts, renew = self._drafts(reader), aim.flat is not None
        ask = aimed(task, reader, aim, alive, renew=renew, first=drafts)
        producer = self._layer(way.producer)
        source = self._pairing.source(producer, self._alive(producer), ask)
        pruned = Pruned(
            network=task.network,
            models=self._models,
            weights=self._weights,
            position=self._pairing.anchor(reader.contraction),
            held=() if drafts else (ask.input,),
            threads=task.running.cores,
        )
        joint, state = Joint(pruned, way, ask, source), [(found, known)]

        def refit() -> None:
            other = Known(threads=task.running.cores)  # of other inputs; but the ridge stays
            state.append((fit_again(self._whole(ask), state[-1][0], alive, other), other))
            self._take(reader, state[-1][0])

        assert task.refit is not None, "layers are refitted jointly where they are refitted"
        for _ in range(source.lasting * task.refit.joint):
            fall = joint.step(refit)
            if fall > 0.0:
                del state[:-1]
            else:
                del state[1:]  # all stays as it was
            if fall < WORTH / source.lasting:
                break
        if not drafts:
            return state[-1]
        self._models.advance(pruned.position, [ask.input])  # of all samples, and for the steps behind
        halves, known = self._collected(aimed(task, reader, aim, alive, renew=renew)), Known(threads=task.running.cores)
        last = fit(halves, state[-1][0].weights, alive, free_bias=reader.bias is not None, known=known)
        self._take(reader, last)
        return last, known
