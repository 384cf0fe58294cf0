"""What a refitted layer should aim at: not its own output alone, but the sum and the activation that the output runs into.

From the output of a contraction, per-channel affine operators (BatchNormalization, constant Mul and Add) may lead to an Add whose
other operand is already known in the pruned model: then the layer aims at the original *sum*, and so repairs the error of
the whole trunk. If that sum is read by an activation with a flat part alone, what lies there is seen by nobody, and only the side must be
right (algorithms.md, section 5).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from onnx_subprune._typing import Float64
from onnx_subprune.calibration.streaming.target import Aim
from onnx_subprune.graph.channels import Contraction
from onnx_subprune.graph.contractions.bias import Addend, normalization_scale
from onnx_subprune.graph.network import Network, only_reader
from onnx_subprune.graph.observation import Observation
from onnx_subprune.graph.operators import attribute, key_of

TINY = 1e-6
"""A channel scaled down by more than this, relative to the largest, is left to aim at its own output."""


def aim_of(
    network: Network,
    contraction: Contraction,
    later: Sequence[Contraction],
    observation: Observation,
    *,
    residual: bool,
    addend: Addend | None = None,
) -> Aim | None:
    """Return the aim of `contraction`; `later` are those that are not refitted yet.

    addend: what it adds besides a bias. None if that is not of the shape of the output, and no number: then there is nothing to aim at.
    """
    if addend is not None:
        return _beside(network, contraction, observation, addend)
    tensor, axis = contraction.output.tensor, contraction.output.index
    rank = len(observation.shapes[tensor])
    channels = _channels(network, contraction)
    scale, shift = np.ones(channels), np.zeros(channels)
    plain = Aim(tensor=tensor, scale=scale, shift=shift, other=None, flat=_flat(network, tensor))
    while (reader := only_reader(network, tensor)) is not None:
        index, slot = reader
        step = _affine(network, index, slot, channels, axis, rank)
        if step is None:
            break
        scale, shift = scale * step[0], shift * step[0] + step[1]
        tensor = network.nodes[index].output[0]
    if np.min(np.abs(scale)) <= TINY * np.max(np.abs(scale)):
        return plain
    own = Aim(tensor=tensor, scale=scale, shift=shift, other=None, flat=_flat(network, tensor))
    reader = only_reader(network, tensor)
    if reader is None or key_of(network.nodes[reader[0]]) != "Add" or not residual:
        return own
    node, other = network.nodes[reader[0]], network.nodes[reader[0]].input[1 - reader[1]]
    behind, _ = network.ancestors([other], ())
    waiting = {network.position[item.node] for item in (contraction, *later)}
    if other == tensor or other in network.constants or waiting.intersection(behind):
        return own
    return Aim(tensor=node.output[0], scale=scale, shift=shift, other=other, flat=_flat(network, node.output[0]))


def _beside(network: Network, contraction: Contraction, observation: Observation, addend: Addend) -> Aim | None:
    """What a contraction that adds something of its own to its product should put out."""
    tensor, channels = contraction.output.tensor, _channels(network, contraction)
    aim = Aim(tensor=tensor, scale=np.ones(channels), shift=np.zeros(channels), other=None, flat=_flat(network, tensor))
    if addend.tensor in network.constants:
        value = network.array(addend.tensor)
        if value.size == 1:
            return replace(aim, shift=np.full(channels, addend.scale * float(value.astype(np.float64).item())))
        same = value.shape == observation.shapes[tensor]
    else:
        runs = [shapes for shapes in (observation.shapes, observation.other_shapes) if tensor in shapes]
        same = all(shapes.get(addend.tensor) == shapes[tensor] for shapes in runs)
    return replace(aim, other=addend.tensor, share=addend.scale) if same else None


def _channels(network: Network, contraction: Contraction) -> int:
    depth = int(network.array(contraction.weight_tensor).shape[contraction.columns.index])
    return depth * contraction.groups if contraction.op == "ConvTranspose" else depth


def _affine(
    network: Network, index: int, slot: int, channels: int, axis: int, rank: int
) -> tuple[Float64, Float64] | None:
    """Scale and shift of a per-channel affine operator, None for any other."""
    node = network.nodes[index]
    if slot == 0 and key_of(node) == "BatchNormalization" and axis == 1:
        return normalization_scale(network, node)
    if key_of(node) not in ("Add", "Mul", "Sub", "Div") or node.input[1 - slot] not in network.constants:
        return None
    value = network.array(node.input[1 - slot]).astype(np.float64)
    wide = value.reshape((1,) * (rank - value.ndim) + value.shape) if value.ndim <= rank else value
    if wide.ndim != rank or wide.size not in (1, channels) or (wide.size > 1 and wide.shape[axis] != channels):
        return None
    flat = np.broadcast_to(wide.ravel(), (channels,)).copy()
    ones, zeros = np.ones(channels), np.zeros(channels)
    if key_of(node) == "Add":
        return ones, flat
    if key_of(node) == "Mul":
        return flat, zeros
    if slot != 0:
        return None
    return (ones, -flat) if key_of(node) == "Sub" else (1.0 / flat if np.all(flat) else ones * np.nan, zeros)


def _flat(network: Network, tensor: str) -> tuple[float, float] | None:
    """Where the activation that alone reads `tensor` is flat."""
    reader = only_reader(network, tensor)
    if reader is None or reader[1] != 0:
        return None
    node = network.nodes[reader[0]]
    if key_of(node) == "Relu":
        return 0.0, np.inf
    if key_of(node) == "HardSwish":
        return -3.0, np.inf
    if key_of(node) == "Clip":
        low, high = (
            _bound(network, node.input[1:2], attribute(node, "min")),
            _bound(network, node.input[2:3], attribute(node, "max")),
        )
        return -np.inf if low is None else low, np.inf if high is None else high
    return None


def _bound(network: Network, names: Sequence[str], given: object) -> float | None:
    if names and names[0] in network.constants:
        return float(network.array(names[0]).astype(np.float64).item())
    return given if isinstance(given, float) else None
