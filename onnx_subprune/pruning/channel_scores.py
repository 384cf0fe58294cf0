"""Scores of the selectors that run the model: every group's channels gated in the original, by the weights that read them.

The gated weights are inputs of one session a group, which runs only what lies behind the group: slicing equals masking, and a gate
between 0 and 1 equals a channel scaled by it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from onnx_subprune._typing import Array, Float64
from onnx_subprune.allocation import Room, proportional
from onnx_subprune.calibration.streaming.stream import Stream
from onnx_subprune.evaluation.divergence import divergence
from onnx_subprune.evaluation.parts import apart, parts_of
from onnx_subprune.graph.channels import ChannelGroup, Use
from onnx_subprune.graph.observing import made_before
from onnx_subprune.graph.statistics import gated_statistics
from onnx_subprune.graph.surgery.masking import scaled_rows
from onnx_subprune.reconstruction.task import Task
from onnx_subprune.runtime.spill import Store
from onnx_subprune.runtime.threads import alongside
from onnx_subprune.selection import ProbingSelector


def scored(task: Task, rooms: Sequence[Room], fraction: float) -> Task:
    """Return the task with the scores that a selector that runs the model needs, for widths up to `fraction` of each room."""
    if not isinstance(task.selector, ProbingSelector):
        return task
    return replace(task, scores=probed(task, task.selector, proportional(rooms, fraction)))


def probed(task: Task, selector: ProbingSelector, sizes: Mapping[str, int]) -> dict[str, Float64]:
    """Return the scores of the channels of every group that `sizes` names, with the most channels that it may keep."""
    network = task.network
    outputs = task.graph.observation.judged
    groups = sorted(
        (group for group in task.graph.groups if group.name in sizes and group.product is None),
        key=lambda group: first_reader(task, group),
    )
    scores = {}
    with Store(task.memory) as store:
        stream = Stream(network, task.data.about(selector.samples), store, task.running)
        reference = list(stream.read(outputs))
        for done, group in enumerate(groups):
            first = first_reader(task, group)
            stream.advance(first, made_before(network, outputs, first))
            probe = Gates(task, group, stream, outputs, reference)
            scores[group.name] = selector.scores(probe, group.cells, sizes[group.name])
            task.watch("probing", done + 1, len(groups))
        stream.close()
    return scores


def first_reader(task: Task, group: ChannelGroup) -> int:
    """Position of the first node that contracts over a group, or counts its channels in a statistic."""
    counted = (part.axis.use.node for part in group.slices if part.axis.use in task.graph.counted and part.axis.use)
    return min(task.network.position[node] for node in (*group.readers, *counted))


class Gates:
    """The probe of one group (see `selection.Probe`), on a stream that stands in front of the first node that changes."""

    def __init__(
        self,
        task: Task,
        group: ChannelGroup,
        stream: Stream,
        outputs: Sequence[str],
        reference: Sequence[Mapping[str, Array]],
    ) -> None:
        self._task, self._group, self._chunks = task, group, stream.chunks
        self._parts = apart(parts_of(task.network, task.graph.observation, outputs), reference)
        self._reference = [self._parts.of(chunk) for chunk in reference]
        self._side = stream.side_by_side(stream.chunks)
        self._run = stream.opened(outputs, list(self._gated(np.ones(group.width))))

    def __call__(self, gates: Float64) -> Float64:
        """Return the divergence of the output, (r,), for gates (r, w)."""
        losses = np.zeros(len(gates))
        for row, gate in enumerate(gates):
            weights = self._gated(gate)
            runs = alongside(self._run, ((chunk, weights) for chunk in range(self._chunks)), self._side)
            losses[row] = divergence(self._reference, [self._parts.of(chunk) for chunk in runs])
        return losses

    def _gated(self, gate: Float64) -> dict[Use, Array]:
        """Weights of the consumers with the rows of each channel times its gate."""
        network = self._task.network
        factors: dict[Use, Float64] = {}
        counted = {
            part.axis: np.ones(part.size) for part in self._group.slices if part.axis.use in self._task.graph.counted
        }
        for part in self._group.slices:
            if part.axis in counted:
                counted[part.axis][part.positions] *= gate[:, None]
        found = gated_statistics(network, counted)
        for consumer in self._group.consumers:
            contraction = consumer.contraction
            weight, axis = network.array(contraction.weight_tensor), contraction.rows.index
            rows = weight.shape[axis] * (contraction.groups if axis else 1)
            factor = factors.setdefault(contraction.weight, np.ones(rows))
            factor[consumer.positions] *= gate[:, None]
            found[contraction.weight] = scaled_rows(weight, contraction, factor)
        return found
