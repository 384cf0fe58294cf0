"""Normalisations over channels of which some are gone: their statistics are those of the channels that stay."""

from collections.abc import Mapping

import numpy as np

from onnx_subprune._typing import Array, Float64, Int64
from onnx_subprune.graph.channels import Axis, ChannelGroup, Use
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.normalization import Mean, Normalization, Place


def operand(network: Network, place: Place) -> tuple[Use, str]:
    """Return the use that a place is, and the constant there."""
    index = network.producer[place[0]]
    return Use(network.labels[index], place[1]), network.nodes[index].input[place[1]]


def counting(network: Network, mean: Mean) -> Axis:
    """Return the axis of the constant that says which channels count in a mean."""
    use, name = operand(network, (mean.weighed, 1))
    shape = network.array(name).shape
    return Axis(name, next(at for at, size in enumerate(shape) if size > 1), use)


def counted_uses(network: Network) -> frozenset[Use]:
    """Return the uses of all constants that say which channels count."""
    places = ((mean.weighed, 1) for item in network.spelled.normalizations for mean in item.means)
    return frozenset(operand(network, place)[0] for place in places)


def normalized(network: Network, group: ChannelGroup) -> tuple[Normalization, ...]:
    """Return the normalisations over channels of a group."""
    axes = {part.axis for part in group.slices}
    return tuple(
        item for item in network.spelled.normalizations if any(counting(network, m) in axes for m in item.means)
    )


def statistics_of(network: Network, kept: Mapping[Axis, Int64]) -> dict[Use, Array]:
    """Return the constants with which every mean is one over the channels that stay, in their unpruned shapes."""
    gates: dict[Axis, Float64] = {}
    for item in network.spelled.normalizations:
        for axis in (counting(network, mean) for mean in item.means):
            if axis in kept:
                gates[axis] = np.zeros(network.array(axis.tensor).size)
                gates[axis][kept[axis]] = 1.0
    return gated_statistics(network, gates)


def gated_statistics(network: Network, gates: Mapping[Axis, Float64]) -> dict[Use, Array]:
    """Return the constants with which every mean is one in which a channel counts as much as its gate says, (channels,)."""
    found: dict[Use, Array] = {}
    for item in network.spelled.normalizations:
        for mean in item.means:
            axis = counting(network, mean)
            if axis in gates:
                old, count = network.array(axis.tensor), max(float(gates[axis].sum()), 1e-30)
                assert axis.use is not None, "a constant has a use"
                weight = gates[axis] if mean.number else gates[axis] / count
                found[axis.use] = weight.reshape(old.shape).astype(old.dtype)
                if mean.number:
                    use, name = operand(network, mean.number)
                    found[use] = np.full_like(network.array(name), 1 / count if mean.inverse else count)
    return found
