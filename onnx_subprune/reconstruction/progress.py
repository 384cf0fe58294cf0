"""How things stand on the walk: both models up to a contraction, the channels chosen, and the new weights.

Some contractions are refitted once more together with the producer of their input (`joint`): which ones, and what is known of these producers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from onnx_subprune._typing import Array, Float64, Mask
from onnx_subprune.calibration.moments.halves import Halves
from onnx_subprune.calibration.moments.limits import oversized
from onnx_subprune.calibration.moments.regression import Regression
from onnx_subprune.calibration.streaming.executor import Lockstep
from onnx_subprune.calibration.streaming.request import Request, Sampling, drawn_share
from onnx_subprune.calibration.streaming.target import Cut, Left
from onnx_subprune.graph.channels import ChannelGroup, Contraction, Use
from onnx_subprune.graph.surgery.slicing import kept_positions
from onnx_subprune.reconstruction.columns import alive_columns
from onnx_subprune.reconstruction.fit import Fit
from onnx_subprune.reconstruction.joint_refit import Producer, Source, lasting, spared
from onnx_subprune.reconstruction.layer import Layer, layer_of
from onnx_subprune.reconstruction.producers.chains import Chain, chains, separate
from onnx_subprune.reconstruction.task import Task, input_of, living_channels, output_count
from onnx_subprune.runtime.spill import Shelf

REMEMBERED = 1 << 27
"""Bytes that a gram takes at most while it waits for the reader of what was made of its inputs; results must not depend on the memory."""


def _serves_others(task: Task, contraction: Contraction) -> bool:
    """True if the weight of a contraction is that of others, or is read in another manner, too, or makes no tensor, or is a stack of several."""
    return (
        contraction.internal
        or contraction.stacked
        or len(task.graph.together(contraction)) > 1
        or contraction.weight in task.graph.fixed
    )


class Pairing:
    """Readers and producers among the contractions `order`, which are in topological order. weights: those of the pruned model so far."""

    def __init__(self, task: Task, order: Sequence[Contraction], weights: Mapping[Use, Array]) -> None:
        self._task, self._weights = task, weights
        wanted = task.refit is not None and task.refit.joint and task.formulation.repairs
        found = chains(task.network, order) if wanted else {}
        self._chains = {
            reader: chain
            for reader, chain in found.items()
            if not oversized(task.graph, task.network, chain.producer, task.data.samples)
            and not any(_serves_others(task, item) for item in (chain.producer, chain.reader))
        }
        self._grams: dict[Use, Float64] = {}

    def chain(self, reader: Contraction) -> Chain | None:
        """Return the chain to `reader` from the producer that it is refitted with, if it is."""
        return self._chains.get(reader.weight)

    def cut(
        self, chain: Chain, reader: Layer, producer: Layer, group: ChannelGroup, support: Sequence[int]
    ) -> Cut | None:
        """Return what is left of `group`, of which `support` is, where it lies on the way from a producer that waits, and nowhere else.

        None where there is more to it than to take the others out.
        """
        if producer.outputs is None or not support or reader.kernel.wide(reader.weights.shape[1]):
            return None
        ends = (producer.node,), (reader.contraction.weight,)
        alone = (group.producers, tuple(consumer.weight for consumer in group.consumers)) == ends
        whole = all(part.positions.size == part.size for part in group.slices)
        if not (alone and whole and separate(self._task.network, chain)):
            return None
        tensors, constants = dict[str, Left](), dict[Use, Left]()
        for axis, positions in kept_positions(self._task.graph, {group.name: support}).items():
            if axis.use is None:
                tensors[axis.tensor] = (axis.index, positions)
            else:
                constants[axis.use] = (axis.index, positions)
        if producer.bias is not None and producer.bias.use not in constants:
            constants[producer.bias.use] = (0, producer.outputs)  # it is new
        return Cut(tensors=tensors, constants=constants)

    def anchor(self, contraction: Contraction) -> int:
        """Return where the pruned model waits at a contraction: before the producers that are still to be refitted with their readers."""
        at = self._task.network.position
        here = at[contraction.node]
        waiting = (at[chain.producer.node] for reader, chain in self._chains.items() if at[reader.node] >= here)
        return min((here, *waiting))

    def remember(self, contraction: Contraction, seen: Regression | None) -> None:
        """Keep the gram of a contraction, fitted on `seen`, if it is a producer: its inputs stay as they are until it is refitted with its reader."""
        if seen is None or seen.gram is None or seen.gram.nbytes > REMEMBERED:
            return
        if any(chain.producer.weight == contraction.weight for chain in self._chains.values()):
            self._grams[contraction.weight] = seen.gram / seen.count

    def source(self, layer: Layer, alive: Mask, request: Request) -> Source:
        """Return the producer `layer`, whose columns `alive` are not dropped, of what a reader reads, of which `request` takes the moments."""
        task, contraction, bias = self._task, layer.contraction, layer.bias
        count = output_count(layer.kernel, task.graph.observation.shapes[contraction.output.tensor])
        columns = max(1, int(alive.sum()) // layer.weights.shape[0])
        every = max(
            request.sampling.every,
            spared(
                task.data.samples,
                task.graph.observation.positions(contraction.output.tensor, contraction.output.index),
                columns,
            ),
        )
        positions = task.running.positions_of(-(-task.data.samples // every), columns)
        return Source(
            request=replace(
                request,
                kernel=layer.kernel,
                input=contraction.input.tensor,
                sampling=Sampling(every=every, positions=positions),
                channels=living_channels(layer.kernel, alive),
            ),
            producer=Producer(
                layer,
                self._now(contraction.weight, task.network.array(contraction.weight_tensor)),
                None if bias is None else self._now(bias.use, np.zeros(len(bias.scale), bias.dtype)),
            ),
            alive=alive.reshape(layer.weights.shape[:2]),
            outputs=layer.outputs,
            share=drawn_share(layer.kernel, count, positions),
            lasting=lasting(layer.kernel, count),
            gram=self._remembered(contraction, alive),
        )

    def _remembered(self, contraction: Contraction, alive: Mask) -> Float64 | None:
        """The gram of what is left of the inputs, or of all of them."""
        gram = self._grams.pop(contraction.weight, None)
        fits = gram is not None and gram.shape[1] in (int(alive.sum()), alive.size // len(gram))
        return gram if fits else None

    def _now(self, use: Use, otherwise: Array) -> Array:
        """The constant in a slot of the pruned model."""
        if use in self._weights:
            return self._weights[use]
        names = self._task.network.node(use.node).input
        return self._task.network.array(names[use.slot]) if use.slot < len(names) and names[use.slot] else otherwise


class State:
    """What the walk and its refits work on. choices and weights grow as it goes; order: the contractions, in topological order."""

    def __init__(self, task: Task, models: Lockstep) -> None:
        self.task, self.models = task, models
        self.choices = dict(task.choices)
        self.weights = Shelf[Use](task.memory // 8)
        self.changed: set[str] = set()
        """Labels of contractions that put out something else than the original's."""
        self.order = sorted(task.graph.contractions, key=lambda item: task.network.position[item.node])
        self.pairing = Pairing(task, self.order, self.weights)

    def layer(self, contraction: Contraction) -> Layer:
        """Return the contraction as it is by now.

        Where targets are those of the original weights, dropped outputs count as the others do.
        """
        choices = self.choices if self.task.formulation.repairs else {}
        layer = layer_of(self.task.network, self.task.graph, contraction, choices)
        if layer.bias is None or layer.bias.half is None or layer.bias.use not in self.weights:
            return layer
        return replace(layer, bias=replace(layer.bias, latest=self.weights[layer.bias.use]))

    def alive(self, layer: Layer) -> Mask:
        """Return which columns of the layer have not been dropped."""
        return alive_columns(self.task.graph, self.choices, layer.contraction, layer.kernel, layer.weights)

    def halves(self, request: Request) -> Halves:
        """Return the moments of the even and of the odd chunks."""
        return self.models.collect(request).moments(self.task.running.cores)

    def own(self, layer: Layer) -> Halves:
        """Return the moments of what the layer reads, with what its old weights and bias make of that for a target."""
        halves = self.models.collect(input_of(layer.contraction, layer.kernel)).moments()
        return halves.with_target(layer.prior).map(lambda half: half.shifted(layer.inside))

    def whole(self, request: Request) -> Regression:
        """Return the moments of all chunks."""
        return self.models.collect(request).whole()

    def now(self, use: Use, otherwise: Array) -> Array:
        """Return the constant in a slot of the pruned model; `otherwise` where the slot is empty."""
        if use in self.weights:
            return self.weights[use]
        names = self.task.network.node(use.node).input
        return self.task.network.array(names[use.slot]) if use.slot < len(names) and names[use.slot] else otherwise

    def take(self, layer: Layer, found: Fit) -> None:
        """Put new weights and bias into the pruned model."""
        if not found.exact:
            self.changed.add(layer.node)
        for use, value in layer.constants(found, self.task.network).items():
            self.weights[use] = value
            if self.task.formulation.follows:
                self.models.override(use, value)
