"""Groups that nothing but sums lies on, between the layers that write their channels and those that read them: these may be seen in another basis.

So are the narrow streams of mobile networks (MobileNetV2 and V3, EfficientNet), whose projections add up without an activation, and chains of layers. The
channels x become T^-1 x in all that writes, and T in all that reads:

    C^1/2 W = P S R',   T = C^-1/2 P S^1/2      (C: what readers have of x, centred where they all have a bias; W: all that read it, side by side)

is the best basis of any width for a reader that is refitted. In seven streams of EfficientNet-Lite0 three quarters of the numbers lose 0.8 to 4.7 % of what
is read, where the best subsets lose 3 to 17 %.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from onnx_subprune._typing import Array
from onnx_subprune.graph.channels import ChannelGraph, ChannelGroup, Contraction, Slice, Use
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import attribute, key_of

WRITERS = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
"""Operators whose outputs are sums over what they read, and nothing else."""
BIAS, SHIFT = 2, 2
"""Slots of the bias of a layer, and of what a BatchNormalization adds."""
SUMS = frozenset(("Add", "Sub", "Sum"))
"""Operators that add channels to channels."""
PASSING = frozenset(
    (
        "AveragePool",
        "Concat",
        "Dropout",
        "Flatten",
        "GlobalAveragePool",
        "Identity",
        "Neg",
        "Reshape",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    )
)
"""Operators that do the same to every channel, and to no two of them together, and make nothing of what is nothing."""


@dataclass(frozen=True, slots=True)
class Sides:
    """Constants that write the channels, constants that read them, and what is read; scaled: the normalizations behind layers, by label, with their weights."""

    written: tuple[Slice, ...]
    read: tuple[Slice, ...]
    watched: tuple[Slice, ...]
    scaled: Mapping[str, Slice]


def stream_sides(network: Network, graph: ChannelGraph, group: ChannelGroup) -> Sides | None:
    """Return where the channels of `group` may be seen in another basis; None where they may not."""
    if group.product is not None or group.step > 1 or not group.consumers:
        return None
    contractions = {item.node: item for item in graph.contractions if not item.internal}
    writers = [contractions[label] for label in group.producers if label in contractions]
    parts = {part.axis: part for part in group.slices}
    if len(writers) < len(group.producers) or not all(
        item.columns in parts and _plain(graph, item) for item in writers
    ):
        return None
    if not all(_plain(graph, consumer.contraction) for consumer in group.consumers):
        return None
    scaled = {
        behind: parts[item.columns]
        for item in writers
        if (behind := _normalization(network, item.output.tensor)) is not None
    }
    if not _only_sums(network, group, scaled):
        return None
    rows = [consumer.contraction.rows for consumer in group.consumers]
    inputs = dict.fromkeys(consumer.contraction.input for consumer in group.consumers)
    named = {network.labels[behind]: part for behind, part in scaled.items()}
    written = [part for axis, part in parts.items() if axis not in rows and _writes(axis.use, named)]
    constants = [*written, *(parts[axis] for axis in rows if axis in parts)]
    single = all(network.array(part.axis.tensor).dtype in (np.float32, np.float64) for part in constants)
    if not single or any(part.positions.shape[1] != 1 for part in written) or not parts.keys() >= {*rows, *inputs}:
        return None
    return Sides(tuple(written), tuple(parts[axis] for axis in rows), tuple(parts[axis] for axis in inputs), named)


def fold_scales(network: Network, sides: Sides, weights: dict[Use, Array]) -> None:
    """Write constants into `weights` with which the layers scale, and the normalizations behind them do nothing but add."""
    for label, part in sides.scaled.items():
        node = network.node(label)
        scale, shift, mean, variance = (network.array(name).astype(np.float64) for name in node.input[1:5])
        epsilon, axis = attribute(node, "epsilon", 1e-5), part.axis
        assert isinstance(epsilon, float), "the checker has seen it"
        factor = scale / np.sqrt(variance + epsilon)
        values = {
            1: np.ones_like(scale),
            2: shift - mean * factor,
            3: np.zeros_like(scale),
            4: np.full_like(scale, 1 - epsilon),
        }
        weights |= {Use(label, slot): value.astype(np.float32) for slot, value in values.items()}
        assert axis.use is not None, "a weight has a use"
        layer = network.node(axis.use.node)
        weight = weights.get(axis.use, network.array(axis.tensor))
        along = [-1 if index == axis.index else 1 for index in range(weight.ndim)]
        weights[axis.use] = (weight.astype(np.float64) * factor.reshape(along)).astype(weight.dtype)
        if len(layer.input) > BIAS and layer.input[BIAS]:
            use = Use(axis.use.node, BIAS)
            bias = weights.get(use, network.array(layer.input[BIAS]))
            if bias.any():  # one number of all channels is none
                weights[use] = (bias.astype(np.float64) * factor).astype(bias.dtype)


def _writes(use: Use | None, scaled: Mapping[str, Slice]) -> bool:
    """True for a constant whose numbers are written to the channels; not for the scales and statistics of normalizations, which will be alike."""
    return use is not None and (use.node not in scaled or use.slot == SHIFT)


def _normalization(network: Network, tensor: str) -> int | None:
    """The place of a BatchNormalization that alone reads what a layer puts out; None where there is none."""
    reads = network.readers.get(tensor, ())
    if len(reads) != 1 or reads[0][1] != 0:
        return None
    node = network.nodes[reads[0][0]]
    plain = key_of(node) == "BatchNormalization" and not attribute(node, "training_mode", 0)
    constant = all(name in network.constants for name in node.input[1:])
    return reads[0][0] if plain and constant and not any(node.output[1:]) else None


def _plain(graph: ChannelGraph, contraction: Contraction) -> bool:
    """True if a layer sums over all that it reads, with a weight that nothing else has."""
    plain = contraction.groups == 1 and not contraction.whole_groups and contraction.observed
    return plain and graph.alone(contraction.weight) and not contraction.recurs


def _adds_to_channels(network: Network, place: int, carried: set[str], added: set[Use | None]) -> bool:
    """True if a layer adds a number of its own to each channel, or nothing: one that all of them share is not the same in another basis."""
    name, use = (*network.nodes[place].input, "", "", "")[BIAS], Use(network.labels[place], BIAS)
    nothing = not name or (name in network.constants and not network.array(name).any())
    return nothing or name in carried or use in added


def _only_sums(network: Network, group: ChannelGroup, scaled: Collection[int]) -> bool:
    """True if channels are written by layers, added up, moved, and read by layers, and nothing else happens to them.

    scaled: the places of the normalizations behind layers.
    """
    carried = {part.axis.tensor for part in group.slices if part.axis.use is None}
    added = {part.axis.use for part in group.slices}
    places = [network.producer.get(name, -1) for name in carried]
    reads = [pair for name in carried for pair in network.readers.get(name, ())]
    if min(places) < 0 or any(slot < 0 for _, slot in reads):
        return False
    for place in {*places, *(index for index, _ in reads)}:
        node, label = network.nodes[place], network.labels[place]
        key = key_of(node)
        if label in group.producers and key in WRITERS and not _adds_to_channels(network, place, carried, added):
            return False
        if label in group.readers or (label in group.producers and key in WRITERS):
            continue
        if place in scaled and all(Use(label, slot) in added for slot in range(1, 5)):
            continue
        if key in SUMS:
            known = [name in carried or Use(label, slot) in added for slot, name in enumerate(node.input)]
        else:
            known = [key in PASSING, *(name in carried for name in node.input[: None if key == "Concat" else 1])]
        if not all(known):
            return False
    return True
