"""How loudly the units of a recurrent layer are heard outside of it, unit by unit and step by step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_subprune._typing import Array, Float64
from onnx_subprune.graph.channels import ChannelGraph, ChannelGroup, Consumer, Use
from onnx_subprune.graph.contractions.reading import kernel_of
from onnx_subprune.graph.contractions.recurrent import Recurrent
from onnx_subprune.graph.network import Network


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnitReader:
    """One reader. loud: (d, h), how much its targets change by with each unit. tensor: what it reads, with channels on `axis`.

    last: it can only read the last states. once: it reads one row of each sample, which may be the states at one step, or of all.
    """

    loud: Float64
    tensor: str
    axis: int
    last: bool
    once: bool

    def squares(self, made: Array, chunk: Mapping[str, Array], backwards: Sequence[bool]) -> Float64:
        """Return the squares of how loud each unit is at each step, (steps, d, 1, h), for units `made` (steps, d, batch, h)."""
        steps, directions = made.shape[:2]
        share = np.ones((steps, directions))
        if self.last:
            share = _ends(steps, backwards)
        elif self.once and steps > 1:
            seen = self._where(made, np.moveaxis(chunk[self.tensor], self.axis, -1), backwards)
            share = share / steps if seen is None else seen
        return np.asarray(share[:, :, None, None] * self.loud[:, None, :] ** 2)

    def _where(self, made: Array, read: Array, backwards: Sequence[bool]) -> Float64 | None:
        """The step whose states it reads, as (steps, d) of ones and zeros: where sequences end, or where the last or first step is; else None."""
        steps, directions = made.shape[:2]
        last, first = (np.zeros((steps, directions)) for _ in range(2))
        last[-1] = first[0] = 1.0
        for where in (_ends(steps, backwards), last, first):
            states = np.concatenate([made[where[:, d].argmax(), d] for d in range(directions)], axis=-1)
            if read.size == states.size and np.array_equal(read.reshape(states.shape), states):
                return where
        return None


def unit_readers(
    network: Network,
    graph: ChannelGraph,
    group: ChannelGroup,
    recurring: Consumer,
    importance: Mapping[Use, Float64],
) -> list[UnitReader]:
    """Return the readers of the units of `group` but for their own layer, which reads them as `recurring`.

    Sums and products tie units to channels of other layers, whose readers are none of theirs: units reach a reader by no weight but its own.
    A channel is a unit of each direction, which readers have in this order; where they have not as many places, each of these is all of them.
    importance: what the targets of recurrent readers count, where that is known.
    """
    kernel, weights = kernel_of(network, recurring.contraction)
    assert isinstance(kernel, Recurrent), "it recurs"
    directions, columns = len(weights), kernel.columns_of(recurring.positions)
    last = not network.readers.get(network.node(recurring.node).output[0])
    place = network.position[recurring.node]
    others = {item.node for item in graph.contractions if item.node != recurring.node}
    walls = [name for label in others for name in network.node(label).output if name]
    found = []
    for consumer in group.consumers:
        if consumer is recurring or place not in network.ancestors([consumer.contraction.input.tensor], walls)[0]:
            continue
        reading, read = kernel_of(network, consumer.contraction)
        scale = importance.get(consumer.weight, np.ones((1, 1)))
        energies = np.sum((read * scale[:, None, :]) ** 2, axis=2).ravel()
        mine = reading.columns_of(consumer.positions)
        parts = directions if mine.shape[1] % directions == 0 else 1
        squares = np.broadcast_to(energies[mine].reshape(group.width, parts, -1).sum(axis=2), (group.width, directions))
        loud = np.zeros((directions, weights.shape[1]))
        loud.ravel()[columns] = np.repeat(np.sqrt(squares), columns.shape[1] // directions, axis=1)
        source = consumer.contraction.input
        once = graph.observation.positions(source.tensor, source.index) == 1
        found.append(UnitReader(loud=loud, tensor=source.tensor, axis=source.index, last=last, once=once))
    return found


def _ends(steps: int, backwards: Sequence[bool]) -> Float64:
    """The step at which each direction ends, as (steps, d) of ones and zeros."""
    found = np.zeros((steps, len(backwards)))
    for direction, backward in enumerate(backwards):
        found[0 if backward else -1, direction] = 1.0
    return found
