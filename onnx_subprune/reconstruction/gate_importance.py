"""What an error of each gate of a recurrent layer does to what reads the units: targets count by it where units are chosen.

A gate that is shut, or saturated, passes no error on, a unit that nobody listens to may be wrong, and what a cell remembers is wrong for long. So a gate's
sums, the targets of W and R, are scaled by the root of the mean square of what the readers' targets change by with them, at this step and all later ones
(`recurrent_units`), the targets of readers that are recurrent scaled likewise. All problems of a group have one unit then, errors of the last readers.
Errors of R come back at the steps behind, each like the one before, and add up: they count `columns.AGAIN` times their squares.

Chosen over four sets of calibration inputs of a network of two GRU and three of one with an LSTM: 1, 3, 6 and 10 times lose about the same, 3 least.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from onnx_subprune._typing import Array, Float64
from onnx_subprune.calibration.streaming.stream import Stream
from onnx_subprune.graph.channels import ChannelGroup, Contraction, Use
from onnx_subprune.graph.contractions.reading import kernel_of
from onnx_subprune.graph.contractions.recurrent import Recurrent
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import attribute, key_of
from onnx_subprune.graph.rules.recurrent import BIAS, HIDDEN, LENGTHS, PEEPHOLES, RECURRENCE, WEIGHT, zeros
from onnx_subprune.reconstruction.recurrent_units import felt
from onnx_subprune.reconstruction.task import Task
from onnx_subprune.reconstruction.unit_readers import UnitReader, unit_readers
from onnx_subprune.runtime.spill import Store
from onnx_subprune.selection import Backward, Forward, Refined

PIECE = 1 << 24
"""Bytes of units that are looked at together: gates, and what is felt of them, take some twenty times as much."""
LEAST = 1e-3
"""No target counts for less than this share of what they all do on average: none is nothing."""


def with_importance(task: Task, groups: Sequence[ChannelGroup]) -> Task:
    """Return the task with what the targets of recurrent layers whose units are in `groups` count; one pass a layer, at most.

    Nothing does for selectors that are published as they are.
    """
    own = {c.contraction.node: (group, c) for group in groups for c in group.consumers if c.contraction.recurs}
    own = {label: pair for label, pair in own.items() if _known(task, pair[1].contraction)}
    ours = isinstance(task.selector, Backward | Forward | Refined)
    if task.importance or not own or not ours or not task.formulation.repairs:
        return task
    position = task.network.position
    found: dict[Use, Float64] = {}
    for label in sorted(own, key=lambda label: -position[label]):
        group, recurring = own[label]
        readers = unit_readers(task.network, task.graph, group, recurring, found)
        if not readers:  # such as of an encoder, whose states another layer begins with
            continue
        data, units = _through_time(task, recurring.contraction, readers)
        found[Use(label, RECURRENCE)] = _some(units)
        found[Use(label, WEIGHT)] = _some(data).reshape(1, -1)
    return replace(task, importance=found)


def _known(task: Task, contraction: Contraction) -> bool:
    """True if the gates follow from what the layer reads and puts out alone."""
    node, network = task.network.node(contraction.node), task.network
    given = [name for name in node.input[HIDDEN : HIDDEN + 2] if name]
    plain = attribute(node, "activations") is None and attribute(node, "clip") is None
    plain = plain and not attribute(node, "input_forget", 0)
    more = any([*node.input[LENGTHS : LENGTHS + 1], *node.input[PEEPHOLES:]])
    steps = task.graph.observation.shapes.get(node.output[0], ()) if node.output[0] else ()
    return (
        key_of(node) in ("GRU", "LSTM", "RNN")
        and plain
        and not more
        and len(steps) == 4
        and all(zeros(network, name) for name in given)
    )


def _through_time(task: Task, contraction: Contraction, readers: Sequence[UnitReader]) -> tuple[Float64, Float64]:
    """Root mean squares of what the targets of `readers` change by with sums of W and of R, each (d, m).

    Each unit is heard with a sign of its own at each step, drawn at random: so what is expected of the square is the sum of all squares.
    """
    network, node = task.network, task.network.node(contraction.node)
    kernel, constants = kernel_of(network, contraction)[0], _constants(network, contraction.node)
    assert isinstance(kernel, Recurrent), "it recurs"
    generator, sums, rows = np.random.default_rng(0), [np.zeros(()), np.zeros(())], 0
    names = dict.fromkeys([node.input[0], node.output[0], *(reader.tensor for reader in readers if reader.once)])
    with Store(task.memory) as store:
        stream = Stream(network, task.data, store, task.running)
        for chunk in stream.read(list(names)):
            data, made = chunk[node.input[0]], chunk[node.output[0]]
            squares = [reader.squares(made, chunk, kernel.backwards) for reader in readers]
            signs = generator.choice(np.array([-1.0, 1.0], np.float32), made.shape)
            heard = signs * np.sqrt(np.sum(squares, axis=0))
            for some in np.array_split(np.arange(made.shape[2]), -(-made.nbytes // PIECE)):
                parts = felt(node, constants, kernel.backwards, data[:, some], made[:, :, some], heard[:, :, some])
                sums = [total + part for total, part in zip(sums, parts, strict=True)]
            rows += made.shape[0] * made.shape[2]
        stream.close()
    return np.sqrt(sums[0] / rows), np.sqrt(sums[1] / rows)


def _constants(network: Network, label: str) -> tuple[Array, Array, Array | None]:
    names = network.node(label).input
    bias = network.array(names[BIAS]) if len(names) > BIAS and names[BIAS] else None
    return network.array(names[WEIGHT]), network.array(names[RECURRENCE]), bias


def _some(scale: Float64) -> Float64:
    """The same with none next to nothing."""
    mean = float(np.sqrt(np.mean(scale**2)))
    return np.maximum(scale, LEAST * mean) if mean > 0.0 else np.ones_like(scale)
