"""What channels bring to a product of two activations, the logits of attention: none of its inputs is a constant that could be refitted.

The logits q'k lose q_i k_i with channel i: on average over queries and keys E[q_i^2] E[k_i^2], where these are independent. Softmax does not see what is
the same for all keys, so k is centred where the product goes into one, over the keys of each sample, whichever axis counts these: torch.nn.TransformerEncoder
has positions first unless it is told otherwise. A channel of several heads brings what its parts bring together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from onnx_subprune._typing import Array, Float64
from onnx_subprune.calibration.data.masks import Visible
from onnx_subprune.calibration.streaming.stream import Stream
from onnx_subprune.graph.channels import Axis, ChannelGroup, Product, Slice
from onnx_subprune.graph.network import Network, only_reader
from onnx_subprune.graph.observation import Observation
from onnx_subprune.graph.observing import made_before
from onnx_subprune.graph.operators import attribute, key_of
from onnx_subprune.reconstruction.task import Task
from onnx_subprune.runtime.spill import Store
from onnx_subprune.selection import Choice

SEEN = 128
"""Samples that are looked at."""
ROWS = 1 << 14
"""Positions of a chunk of which second moments of a stream are taken."""
SCALING = frozenset({"Add", "Cast", "Div", "Identity", "Mul", "Where"})
"""Operators between a product and its Softmax."""


def measured(task: Task) -> Task:
    """Return the task with what the channels of all groups bring that products of activations sum over; one pass, at most."""
    groups = [group for group in task.graph.groups if group.product is not None and group.name not in task.strengths]
    if not groups:
        return task
    found = {**task.strengths}
    with Store(task.memory) as store:
        data = task.data.about(SEEN)
        stream, visible = Stream(task.network, data, store, task.running), Visible(data, task.running.mask)
        at = task.network.position
        ordered = sorted(groups, key=lambda group: at[group.readers[0]])
        wanted = [[side.axis.tensor for side in _sides(task.network, group)] for group in ordered]
        for number, group in enumerate(ordered):
            place = at[group.readers[0]]
            stream.advance(
                place, made_before(task.network, [name for names in wanted[number:] for name in names], place)
            )
            found[group.name] = _strength(task, group, stream, visible)
        stream.close()
    return replace(task, strengths=found)


def strongest(strengths: Mapping[str, Float64], group: ChannelGroup, width: int) -> Choice:
    """Return the channels that bring most, equally many of each cell, and the share that the others bring."""
    strength = strengths[group.name].sum(axis=1)
    order = np.argsort(-strength, kind="stable")
    each = width // group.step
    kept = np.sort(np.concatenate([order[group.cells[order] == cell][:each] for cell in range(group.step)]))
    lost = float(np.delete(strength, kept).sum())
    return Choice(tuple(kept.tolist()), lost / max(float(strength.sum()), 1e-300))


def _sides(network: Network, group: ChannelGroup) -> tuple[Slice, Slice]:
    """Where the channels lie in front of the two inputs of the product, one place for each part of each of them."""
    assert group.product is not None, "only such groups are asked about"
    return _side(network, group, group.product.left), _side(network, group, group.product.right)


def _side(network: Network, group: ChannelGroup, axis: Axis) -> Slice:
    """The last tensor on the way to an input of the product that has all heads of that side on one axis, else that input."""
    parts = {part.axis.tensor: part for part in group.slices if part.axis.use is None}
    nodes, _ = network.ancestors([axis.tensor], ())
    made = [name for index in reversed(nodes) for name in network.nodes[index].output if name in parts]
    most = max((parts[name].positions.shape[1] for name in made), default=0)
    found = next((name for name in made if parts[name].positions.shape[1] == most), axis.tensor)
    return parts[found]


def _strength(task: Task, group: ChannelGroup, stream: Stream, visible: Visible) -> Float64:
    """(w, r), r parts a channel: energy on the left times energy on the right."""
    assert group.product is not None, "only such groups are asked about"
    sides = _sides(task.network, group)
    keys = key_axes(task.network, task.graph.observation, group.product, sides[1])
    energies = [np.zeros(part.size) for part in sides]
    for number, chunk in enumerate(stream.read(list(dict.fromkeys(part.axis.tensor for part in sides)))):
        for place, part in enumerate(sides):
            rows, _ = visible_rows(
                chunk[part.axis.tensor], part.axis.index, visible, number, centred_over=keys if place else ()
            )
            energies[place] += (rows**2).reshape(-1, part.size).sum(axis=0)
    left, right = (energy[part.positions] for energy, part in zip(energies, sides, strict=True))
    parts = {part.axis: part.positions.shape[1] for part in group.slices if part.axis.use is None}
    return _multiplied(left, right, parts.get(group.product.right, 1))


def _multiplied(left: Float64, right: Float64, each: int) -> Float64:
    """(w, r): left times right, of whose heads, of `each` parts, one serves several of the left where they are fewer; (w, 1) where that is not how it is."""
    times, rest = divmod(left.shape[1], right.shape[1])
    if rest or right.shape[1] % each:
        return np.asarray(left.sum(axis=1, keepdims=True) * right.sum(axis=1, keepdims=True))
    heads = right.reshape(len(right), -1, each)
    return np.asarray(left * heads.repeat(times, axis=1).reshape(left.shape))


def key_axes(network: Network, observation: Observation, product: Product, part: Slice) -> tuple[int, ...]:
    """Return the axes of a tensor in front of K that count the keys of a sample, as they are with its channels moved to the end.

    None where the product goes into no Softmax. Samples are on the first axis, unless that counts the keys and the others the samples.
    """
    if not into_softmax(network, product.node):
        return ()
    shape = list(observation.shapes[part.axis.tensor])
    del shape[part.axis.index]
    made = observation.shapes.get(network.node(product.node).output[0], ())
    keys = made[-1] if key_of(network.node(product.node)) == "MatMul" and made else 0
    if len(shape) < 2:
        return tuple(range(len(shape)))
    varying = {place - (place > part.axis.index) for place in observation.varying_axes.get(part.axis.tensor, ())}
    first = shape[0] == keys and prod(shape[1:]) == observation.batch
    if first and (keys != observation.batch or (varying and 0 not in varying)):
        return (0,)
    return tuple(range(1, len(shape)))


def visible_rows(
    value: Array, axis: int, visible: Visible, chunk: int, *, centred_over: Sequence[int] = ()
) -> tuple[Float64, Float64]:
    """Return the channels of a tensor of a chunk, (..., w), zero where nothing is to be seen, and (..., 1), one where something is.

    centred_over: axes, with the channels at the end, over whose visible positions their mean is taken off.
    """
    there = visible.shown(chunk, np.ones(value.shape)).astype(np.float64)
    shown = np.moveaxis(there, axis, -1)[..., :1]
    moved = np.moveaxis(value, axis, -1).astype(np.float64) * shown
    if centred_over:
        places = tuple(centred_over)
        counts = np.maximum(shown.sum(axis=places, keepdims=True), 1.0)
        with np.errstate(invalid="ignore"):  # of infinite numbers; what follows from them is looked at
            moved = (moved - moved.sum(axis=places, keepdims=True) / counts) * shown
    return np.asarray(moved), np.asarray(shown)


def some_rows(value: Array, axis: int, visible: Visible, chunk: int) -> tuple[Float64, Float64]:
    """Return what `visible_rows` does, (n, w) and (n, 1), of about `ROWS` positions where none is hidden: maps have far more than moments need."""
    if visible.mask is not None:
        return visible_rows(value, axis, visible, chunk)
    rows = np.moveaxis(value, axis, -1).reshape(-1, value.shape[axis])
    some = rows[:: max(1, len(rows) // ROWS) | 1].astype(np.float64)
    return some, np.ones((len(some), 1))


def into_softmax(network: Network, label: str) -> bool:
    """True if a product goes into a Softmax over its last axis and nowhere else; in attention it does."""
    if key_of(network.node(label)) == "Attention":
        return True
    tensor = network.node(label).output[0]
    while (reader := only_reader(network, tensor)) is not None:
        node = network.nodes[reader[0]]
        if key_of(node) == "Softmax":
            return attribute(node, "axis", -1 if network.opset >= 13 else 1) == -1
        if key_of(node) not in SCALING:
            return False
        tensor = node.output[0]
    return False
