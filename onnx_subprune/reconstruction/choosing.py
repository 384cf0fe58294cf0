"""Channels chosen on the walk: on the moments of the first contraction that reads them, and of the others that read the same tensor."""

from collections.abc import Sequence
from dataclasses import replace

from onnx_subprune.calibration.moments.halves import Halves
from onnx_subprune.calibration.moments.regression import Regression
from onnx_subprune.calibration.streaming.executor import active
from onnx_subprune.graph.channels import ChannelGroup, Consumer, Contraction
from onnx_subprune.graph.contractions.reading import kernel_of
from onnx_subprune.reconstruction.columns import alive_columns, problem_of
from onnx_subprune.reconstruction.layer import Layer
from onnx_subprune.reconstruction.progress import State
from onnx_subprune.reconstruction.task import every_of, input_of
from onnx_subprune.selection import Choice, Problem, conditioning


class Choosing:
    """The groups that get narrower; those without a choice are chosen where the first contraction reads them."""

    def __init__(self, state: State, groups: Sequence[ChannelGroup]) -> None:
        self._state, self._groups = state, groups

    def open(self, contraction: Contraction) -> list[tuple[ChannelGroup, Consumer]]:
        """Return the groups whose channels are to be chosen on the moments of this contraction, and how it reads them."""
        return [
            (group, next(consumer for consumer in group.consumers if consumer.weight == contraction.weight))
            for group in self._groups
            if group.name not in self._state.choices
            and any(consumer.weight == contraction.weight for consumer in group.consumers)
        ]

    def choose(self, layer: Layer, halves: Halves) -> None:
        """Choose the channels of those groups on what was collected of `layer`, and let the pruned model go without the others, where they lie ahead."""
        moments = halves.about(free_bias=layer.bias is not None)
        for group, consumer in self.open(layer.contraction):
            self._state.choices[group.name] = self._chosen(group, consumer, layer, moments, halves.shrinkage)
            self._cut(group, layer)

    def _cut(self, group: ChannelGroup, reader: Layer) -> None:
        state, pairing = self._state, self._state.pairing
        chain = pairing.chain(reader.contraction)
        if chain is not None:
            support = state.choices[group.name].support
            cut = pairing.cut(chain, reader, state.layer(chain.producer), group, support)
            if cut is not None:
                state.models.cut(cut)

    def _chosen(
        self, group: ChannelGroup, consumer: Consumer, layer: Layer, moments: Regression, shrinkage: float
    ) -> Choice:
        task = self._state.task
        problems = [problem_of(consumer, layer.kernel, moments, layer.prior, self._state.alive(layer), shrinkage)]
        problems += [self._neighbour(other) for other in group.consumers if other is not consumer]  # of the same tensor
        choice = task.choose(group, problems, [task.widths[group.name]])[0]
        return replace(choice, conditioning=conditioning(problems, choice.support), data=1.0 - shrinkage)

    def _neighbour(self, consumer: Consumer) -> Problem:
        state, task, contraction = self._state, self._state.task, consumer.contraction
        kernel, weights = kernel_of(task.network, contraction)
        every = every_of(task, contraction, weights.shape[1]) if task.formulation.repairs else 1
        request = input_of(contraction, kernel, every)
        halves = state.models.collect(request).moments().with_target(weights)
        halves = active(state.models, request, halves)
        alive = alive_columns(task.graph, state.choices, contraction, kernel, weights)
        return problem_of(consumer, kernel, halves.whole.centered(), weights, alive, halves.shrinkage)
