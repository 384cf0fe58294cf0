"""The lock-step walk: original and pruned model advance together, groups are chosen and layers refitted as they come.

For every contraction in topological order, on the input that it has in the pruned model so far: choose the channels of the groups
that it is the first to read, then regress it on what it should put out. Three formulations (algorithms.md, section 1) differ in which
model input and target come from.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.asking import aimed, drafted, input_of, living_channels, output_count
from onnx_subprune.calibration.alongside import alongside
from onnx_subprune.calibration.ask import Ask, drawn_share
from onnx_subprune.calibration.bias import Bias, bias_of
from onnx_subprune.calibration.equations import Fit, Known, fit, fit_again, living, plain, problem_of, spread
from onnx_subprune.calibration.kernel import Kernel
from onnx_subprune.calibration.lockstep import Lockstep, united
from onnx_subprune.calibration.regression import Regression
from onnx_subprune.calibration.store import Shelf
from onnx_subprune.calibration.targets import Aim, aim_of
from onnx_subprune.calibration.ways import ways
from onnx_subprune.choosing import alive_columns, choose_apart, far_apart
from onnx_subprune.graph.channels import ChannelGroup, Consumer, Contraction, Use
from onnx_subprune.joint import WORTH, Joint, Producer, Pruned, Source, lasting, spared
from onnx_subprune.restriction import oversized
from onnx_subprune.selection import Choice, Problem, conditioning
from onnx_subprune.selection.ridge import Weights
from onnx_subprune.task import Asymmetric, Layerwise, Reconstruction, Refitted, Task, kernel_of

Array = NDArray[np.generic]
Float64 = NDArray[np.float64]
Mask = NDArray[np.bool_]


def reconstruct(task: Task) -> Reconstruction:
    """Walk through the model once; see the module."""
    groups = [group for group in task.graph.groups if task.widths.get(group.name, group.width) < group.width]
    paired = isinstance(task.formulation, Asymmetric)
    with task.executor.begin(task.network, task.data, task.running, task.memory, paired=paired) as models:
        return _Walk(task, groups, models).run()


class _Walk:
    """One pass. `_choices` and `_weights` grow as it goes."""

    def __init__(self, task: Task, groups: Sequence[ChannelGroup], models: Lockstep) -> None:
        self._task, self._groups, self._models = task, groups, models
        self._seconds = {"calibrate": 0.0, "select": 0.0, "refit": 0.0}
        start = task.clock()
        apart = [group for group in groups if far_apart(group) and group.name not in task.choices]
        self._choices = choose_apart(task, apart) if apart else dict(task.choices)
        self._seconds["calibrate"] += task.clock() - start
        self._weights = Shelf[Use](task.memory // 8)
        self._refits: list[Refitted] = []
        self._order = sorted(task.graph.contractions, key=lambda item: task.network.position[item.node])
        wanted = task.refit is not None and task.refit.joint and isinstance(task.formulation, Asymmetric)
        found = ways(task.network, self._order) if wanted else {}
        self._ways = {reader: way for reader, way in found.items() if not self._oversized(way.producer)}

    def run(self) -> Reconstruction:
        for place, contraction in enumerate(self._order):
            if self._concerned(contraction):
                self._step(place, contraction)
            self._task.watch("pruning", place + 1, len(self._order))
        return Reconstruction(
            choices=self._choices, weights=self._weights, refits=tuple(self._refits), seconds=self._seconds
        )

    def _concerned(self, contraction: Contraction) -> bool:
        """True if the contraction loses inputs, or stands behind a change."""
        loses = any(part.axis == contraction.rows for group in self._groups for part in group.slices)
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
        kernel, weights = kernel_of(task.network, contraction)
        drafts = self._drafts(contraction)
        self._models.advance(self._anchor(contraction), [] if drafts else [contraction.input.tensor])
        later = self._order[place + 1 :]
        rank = len(task.graph.observation.shapes[contraction.output.tensor])
        residual = task.refit is not None and task.refit.residual
        aim = aim_of(task.network, contraction, later, rank, residual=residual)
        bias = self._bias(contraction, kernel)
        free_bias = bias is not None
        alive = alive_columns(task.graph, self._choices, contraction, kernel, weights)
        halves = self._moments(contraction, kernel, weights, aim, place, alive)
        calibrated = clock()
        about = None
        if self._chooses(contraction) or task.refit is None:
            if kernel.groups == 1:
                halves = [spread(half, alive) for half in halves]
            about = halves[0] + halves[1] if len(halves) == 2 else halves[0]
            about = about.centered() if free_bias else about
            self._choose(contraction, kernel, about, weights)
            alive = alive_columns(task.graph, self._choices, contraction, kernel, weights)
        selected = clock()
        known = Known(task.memory // 8, task.running.cores)
        if task.refit is None:
            assert about is not None
            found = plain(about, weights, alive)
        else:
            about = None
            if kernel.groups == 1:
                halves = [living(half, alive) for half in halves]
            found = fit(halves, weights, alive, free_bias=free_bias, known=known)
        self._take(contraction, kernel, aim, found)
        del halves  # their grams take room that more fits need
        settled = found
        if task.refit is not None and aim.flat is not None and isinstance(task.formulation, Asymmetric) and free_bias:
            settled = self._renew(contraction, kernel, aim, found, alive, task.refit.rounds, known)
        if task.refit is not None and self._fitted_again(contraction):
            settled = self._refit_jointly(contraction, kernel, aim, settled, alive, task.refit.joint)
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

    def _moments(
        self, contraction: Contraction, kernel: Kernel, weights: Weights, aim: Aim, place: int, alive: Mask
    ) -> list[Regression]:
        """Moments of the even and of the odd chunks; of the columns `alive` alone, where there is one convolution group."""
        network = self._task.network
        if not isinstance(self._task.formulation, Asymmetric):
            bias = self._bias(contraction, kernel)
            inside = (
                bias.inside((weights.shape[0], weights.shape[2]))
                if bias is not None
                else np.zeros_like(weights[:, 0], np.float64)
            )
            halves = self._models.collect(input_of(contraction, kernel))
            return [half.moments().with_target(weights).shifted(inside) for half in halves]
        after = network.position[self._order[place + 1].node] if place + 1 < len(self._order) else len(network.nodes)
        after = min(
            after, network.producer[aim.tensor] + 1
        )  # what follows from the aim alone need not be held beside it
        self._models.advance_original(after, also=[aim.tensor])
        ask = aimed(self._task, contraction, kernel, aim, alive, first=self._fitted_again(contraction))
        return self._collected(ask)

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

    def _fitted_again(self, contraction: Contraction) -> bool:
        """True if the contraction is to be refitted once more, together with the producer of its input."""
        return contraction.node in self._ways

    def _drafts(self, contraction: Contraction) -> bool:
        """True if fits before the last look at some of the samples only."""
        return self._fitted_again(contraction) and drafted(self._task, contraction) > 1

    def _chooses(self, contraction: Contraction) -> bool:
        """True if the channels of a group are to be chosen on this contraction's moments."""
        return any(
            consumer.node == contraction.node and group.name not in self._choices
            for group in self._groups
            for consumer in group.consumers
        )

    def _choose(self, contraction: Contraction, kernel: Kernel, moments: Regression, weights: Weights) -> None:
        for group in self._groups:
            mine = [consumer for consumer in group.consumers if consumer.node == contraction.node]
            if mine and group.name not in self._choices:
                self._choices[group.name] = self._chosen(group, mine[0], contraction, kernel, moments, weights)

    def _chosen(
        self,
        group: ChannelGroup,
        consumer: Consumer,
        contraction: Contraction,
        kernel: Kernel,
        moments: Regression,
        weights: Weights,
    ) -> Choice:
        task = self._task
        alive = alive_columns(task.graph, self._choices, contraction, kernel, weights)
        problems = [problem_of(consumer, kernel, moments, weights, alive)]  # the others read the same tensor
        problems += [self._neighbour(other) for other in group.consumers if other is not consumer]
        choice = task.choose(group, problems, [task.widths[group.name]])[0]
        return replace(choice, conditioning=conditioning(problems, choice.support))

    def _neighbour(self, consumer: Consumer) -> Problem:
        contraction = consumer.contraction
        kernel, weights = kernel_of(self._task.network, contraction)
        sums = united(self._models.collect(input_of(contraction, kernel)))
        moments = sums.moments().with_target(weights).centered()
        alive = alive_columns(self._task.graph, self._choices, contraction, kernel, weights)
        return problem_of(consumer, kernel, moments, weights, alive)

    def _bias(self, contraction: Contraction, kernel: Kernel) -> Bias | None:
        channels = self._task.graph.observation.shapes[contraction.output.tensor][contraction.output.index]
        return bias_of(self._task.network, contraction, kernel, channels)

    def _take(self, contraction: Contraction, kernel: Kernel, aim: Aim, found: Fit) -> None:
        """Put new weights and bias into the pruned model."""
        network = self._task.network
        dtype = network.array(contraction.weight_tensor).dtype
        self._put(
            contraction.weight, kernel.from_matrix(found.weights, dtype, network.array(contraction.weight_tensor).shape)
        )
        bias = self._bias(contraction, kernel)
        if found.bias is not None and bias is not None:
            self._put(bias.use, bias.replaced(found.bias))

    def _put(self, use: Use, value: Array) -> None:
        self._weights[use] = value
        if not isinstance(self._task.formulation, Layerwise):
            self._models.override(use, value)

    def _renew(
        self,
        contraction: Contraction,
        kernel: Kernel,
        aim: Aim,
        found: Fit,
        alive: Mask,
        rounds: int,
        known: Known,
    ) -> Fit:
        """Targets that differ from what the layer now puts out only where the activation behind sees it."""
        first = self._fitted_again(contraction)
        ask = aimed(self._task, contraction, kernel, aim, alive, renew=True, with_gram=False, first=first)
        for _ in range(rounds):
            found = fit_again(self._whole(ask), found, alive, known)
            self._take(contraction, kernel, aim, found)
        return found

    def _anchor(self, contraction: Contraction) -> int:
        """Where the pruned model waits at a contraction: before the producers that are still to be refitted with their readers."""
        at = self._task.network.position
        here = at[contraction.node]
        waiting = (at[way.producer.node] for reader, way in self._ways.items() if at[reader] >= here)
        return min((here, *waiting))

    def _refit_jointly(self, reader: Contraction, kernel: Kernel, aim: Aim, found: Fit, alive: Mask, steps: int) -> Fit:
        """Refit a contraction together with the producer of its input; see `joint`."""
        task, producer = self._task, self._ways[reader.node].producer
        source, weights = kernel_of(task.network, producer)
        bias = self._bias(producer, source)
        shift = None if bias is None else self._now(bias.use, np.zeros(len(bias.scale), bias.dtype))
        shape = task.graph.observation.shapes[producer.output.tensor]
        there = alive_columns(task.graph, self._choices, producer, source, weights)
        columns = max(1, int(there.sum()) // weights.shape[0])
        every = spared(task.data.samples, output_count(source, shape), columns)
        positions: int | None = task.running.positions_of(-(-task.data.samples // every), columns)
        observed = task.graph.observation.shapes
        if any(array.shape[1:] != observed[name][1:] for name, array in task.data.arrays.items() if name in observed):
            positions = None  # the data have other sizes than the model was traced with, so the share would be another
        drafts, renew = self._drafts(reader), aim.flat is not None
        ask = aimed(task, reader, kernel, aim, alive, renew=renew, first=drafts)
        now = self._now(producer.weight, task.network.array(producer.weight_tensor))
        joint = Joint(
            Pruned(
                network=task.network,
                models=self._models,
                weights=self._weights,
                position=self._anchor(reader),
                held=() if drafts else (ask.input,),
            ),
            self._ways[reader.node],
            ask,
            Source(
                ask=replace(
                    ask,
                    kernel=source,
                    input=producer.input.tensor,
                    positions=positions,
                    every=every,
                    channels=living_channels(source, there),
                ),
                producer=Producer(source, producer.weight, now, bias, shift),
                alive=there.reshape(weights.shape[:2]),
                share=drawn_share(source, output_count(source, shape), positions),
            ),
        )
        state = [found]

        def refit() -> None:
            state.append(fit_again(self._whole(ask), state[-1], alive, Known()))  # other inputs, but the ridge stays
            self._take(reader, kernel, aim, state[-1])

        times = lasting(source, output_count(source, shape))
        for _ in range(times * steps):
            kept = len(state)
            fall = joint.step(refit)
            if fall <= 0.0:
                del state[kept:]  # all stays as it was
            if fall < WORTH / times:
                break
        if not drafts:
            return state[-1]
        halves = self._collected(aimed(task, reader, kernel, aim, alive, renew=renew))
        known, free = Known(threads=task.running.cores), self._bias(reader, kernel) is not None
        last = fit(halves, state[-1].weights, alive, free_bias=free, known=known)
        self._take(reader, kernel, aim, last)
        return last

    def _now(self, use: Use, otherwise: Array) -> Array:
        """The constant in a slot of the pruned model."""
        if use in self._weights:
            return self._weights[use]
        names = self._task.network.node(use.node).input
        return self._task.network.array(names[use.slot]) if use.slot < len(names) and names[use.slot] else otherwise
