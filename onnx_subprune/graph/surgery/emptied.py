"""What residual branches add that read nothing: one number a channel, which the operators behind their last layer make of its bias."""

from collections.abc import Callable, Sequence

import numpy as np
from onnx import NodeProto, helper

from onnx_subprune._typing import Array, Float64
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import attribute, key_of
from onnx_subprune.graph.order import captured
from onnx_subprune.graph.tracing.branches import Branch

Left = Callable[[int, int], Array | None]
"""What is left of the constant in a slot of the node at a place; None where it is empty."""


def added_by(network: Network, branch: Branch, channels: int, left: Left) -> Array:
    """Return what a branch without inputs adds, for so many channels, in a shape that broadcasts."""
    first, *others = branch.places
    node, dtype = network.nodes[first], network.array(branch.contraction.weight_tensor).dtype
    value, bias = np.zeros(channels), left(first, 2)
    if bias is not None:
        beta = attribute(node, "beta", 1.0) if key_of(node) == "Gemm" else 1.0
        assert isinstance(beta, float)
        value = value + beta * bias.astype(np.float64).ravel()
    made = node.output[0]
    for place in others:
        node = network.nodes[place]
        slot = list(node.input).index(made)
        made, value = node.output[0], _through(node, place, slot, value, left)
    return value.astype(dtype).reshape(-1, *(1,) * branch.behind)


def _through(node: NodeProto, place: int, slot: int, value: Float64, left: Left) -> Float64:
    """What a node makes of one number a channel."""
    key = key_of(node)
    if key == "BatchNormalization":
        found = [left(place, slot) for slot in range(1, 5)]
        gamma, beta, mean, variance = (item.astype(np.float64) for item in found if item is not None)
        epsilon = attribute(node, "epsilon", 1e-5)
        assert isinstance(epsilon, float)
        return np.asarray((value - mean) / np.sqrt(variance + epsilon) * gamma + beta)
    if key == "Relu":
        return np.maximum(value, 0.0)
    operation = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}.get(key)
    other = None if operation is None else left(place, 1 - slot)  # what shape it gets may not be known
    if operation is None or other is None:
        return value
    pair = (value, other.astype(np.float64).ravel())
    return np.asarray(operation(*(pair if slot == 0 else pair[::-1])))


class Sums:
    """Sums of which one side is constant now. constants: the new ones, by name; fresh: makes a new name of a stem.

    maps: those of the constants that are added to tensors with channels on the second axis and positions behind. kept: what bodies read, and outputs.
    """

    def __init__(self, network: Network, fresh: Callable[[str], str]) -> None:
        self.constants: dict[str, Array] = {}
        self._network, self._fresh = network, fresh
        self._names: dict[str, str] = {}
        self.maps = set[str]()
        self.kept = {*network.outputs, *(name for node in network.nodes for name in captured(node))}

    def without(self, node: NodeProto, slot: int, added: Array, rank: int) -> list[NodeProto]:
        """Return what stands in the place of an Add of tensors of `rank`, of which input `slot` is `added`: nothing, where that is zero."""
        other = node.input[1 - slot]
        if np.any(added):
            name = self._fresh(f"{node.output[0]}_added")
            self.constants[name] = added
            if rank == added.ndim + 1 > 2:
                self.maps.add(name)
            return [helper.make_node("Add", [other, name], list(node.output), name=node.name)]
        if node.output[0] in self.kept:
            return [helper.make_node("Identity", [other], list(node.output), name=node.name)]
        self._names[node.output[0]] = self._names.get(other, other)
        return []

    def renamed(self, nodes: Sequence[NodeProto]) -> list[NodeProto]:
        """Return the nodes, each reading the other summand where a sum is gone; what `without` has taken must come in order."""
        return [self._reading(node) for node in nodes]

    def _reading(self, node: NodeProto) -> NodeProto:
        if self._names.keys().isdisjoint(node.input):
            return node
        new = NodeProto()
        new.CopyFrom(node)
        for slot, name in enumerate(node.input):
            new.input[slot] = self._names.get(name, name)
        return new
