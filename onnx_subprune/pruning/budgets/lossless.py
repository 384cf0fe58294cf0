"""Widths at which a group loses nothing: those of all channels that bring anything to a consumer, anywhere in the data."""

from collections.abc import Sequence

import numpy as np

from onnx_subprune._typing import Float64, Int64
from onnx_subprune.allocation import Room
from onnx_subprune.calibration.moments.regression import presence_in
from onnx_subprune.calibration.streaming.questions import Greatest
from onnx_subprune.calibration.streaming.request import Request
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.contractions.reading import kernel_of
from onnx_subprune.reconstruction.products import measured
from onnx_subprune.reconstruction.task import Task


def lossless_width(presence: Float64, cells: Int64) -> int:
    """Return the least width with all channels whose `presence` (w,) is not zero, equally many of each of `cells`, (w,)."""
    counts = np.bincount(cells[presence > 0.0], minlength=int(cells.max()) + 1)
    return int(counts.max()) * len(counts)


def lossless_widths(task: Task, rooms: Sequence[Room]) -> dict[str, int]:
    """Return the lossless width of every room's group, from one run of the model over all data; no moments are taken."""
    task, network = measured(task), task.network
    groups = [task.graph.group(room.name) for room in rooms]
    needed = {consumer.weight: consumer.contraction for group in groups for consumer in group.consumers}
    columns: dict[Use, Float64] = {}
    with task.executor.begin(network, task.data, task.running, task.memory, original=None) as run:
        for contraction in sorted(needed.values(), key=lambda item: network.position[item.node]):
            run.advance(network.position[contraction.node])
            kernel, weights = kernel_of(network, contraction)
            source = contraction.input.tensor
            request = Request(weight=contraction.weight, kernel=kernel, input=source, question=Greatest())
            peaks = run.collect(request).whole().energy.reshape(len(weights), -1)
            columns[contraction.weight] = presence_in(np.repeat(peaks, kernel.taps, axis=1), weights)
    found = {}
    for group in groups:
        presence = np.zeros(group.width) if group.product is None else task.strengths[group.name].sum(axis=1)
        for consumer in group.consumers:
            kernel, _ = kernel_of(network, consumer.contraction)
            presence += columns[consumer.weight][kernel.columns_of(consumer.positions)].sum(axis=1)
        normalized = task.graph.normalized(group)  # what readers never see may count in a statistic
        found[group.name] = group.width if normalized else lossless_width(presence, group.cells)
    return found
