"""Which constants of the file each use reads: one constant may serve many nodes, as it is or turned.

A constant that is nothing but another one, turned by Transpose or passed on by Identity, is that one. Uses of one constant of the file are
*together*: where it is the weight of a contraction it stays one, so that its uses keep the same channels (`tracing.tied`) and are refitted as one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from onnx_subprune._typing import Array
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import attribute, key_of
from onnx_subprune.graph.order import captured

BODY = "the body of "
"""What stands before the label of a node whose body reads a constant."""
PASSING = ("Identity", "Transpose")
"""Operators through which a constant stays the same numbers."""


@dataclass(frozen=True, slots=True)
class Root:
    """Where a constant comes from: axis i of it is axis axes[i] of `tensor`; with None, it is `tensor` itself."""

    tensor: str
    axes: tuple[int, ...] | None = None

    def axis(self, index: int) -> int:
        """Return the axis of the root that axis `index` of the constant is."""
        return index if self.axes is None else self.axes[index]

    def value(self, array: Array) -> Array:
        """Return the root for which the constant is `array`."""
        return array if self.axes is None else np.ascontiguousarray(array.transpose(np.argsort(np.array(self.axes))))


@dataclass(frozen=True, slots=True)
class Readers:
    """All that reads one constant of the file: uses by computing nodes, each with how it sees it, and what else there is.

    others: labels of nodes whose bodies read it or which compute other constants from it, and names of outputs that it is.
    """

    uses: dict[Use, Root] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)


def root_of(network: Network, name: str) -> Root:
    """Return where the constant `name` comes from; itself, where it is computed by anything but Identity and Transpose."""
    index = network.producer.get(name)
    key = "" if name in network.initializers or index is None else key_of(network.nodes[index])
    if index is None or key not in PASSING:
        return Root(name)
    before = root_of(network, network.nodes[index].input[0])
    if key == "Identity":
        return before
    order = attribute(network.nodes[index], "perm")
    turned = order if isinstance(order, (list, tuple)) else reversed(range(network.array(name).ndim))
    return Root(before.tensor, tuple(before.axis(int(axis)) for axis in turned))


def readers_of_constants(network: Network) -> Mapping[str, Readers]:
    """Return, by constant of the file, or computed of such, what reads it."""
    found: dict[str, Readers] = {}
    roots: dict[str, Root] = {}

    def root(name: str) -> Root:
        if name not in roots:
            roots[name] = root_of(network, name)
        return roots[name]

    for label, node in zip(network.labels, network.nodes, strict=True):
        constant = network.constants.issuperset(name for name in node.output if name)
        passed_on = constant and key_of(node) in PASSING
        for slot, name in enumerate(node.input):
            if name in network.constants and not passed_on:
                readers = found.setdefault(root(name).tensor, Readers())
                if constant:
                    readers.others.append(label)
                else:
                    readers.uses[Use(label, slot)] = root(name)
        for name in captured(node):
            if name in network.constants:
                found.setdefault(root(name).tensor, Readers()).others.append(f"{BODY}{label}")
    for name in network.outputs:
        if name in network.constants:
            found.setdefault(root(name).tensor, Readers()).others.append(f"{name!r}, an output of the model")
    return found


def passing_on(network: Network, tensor: str) -> Iterator[str]:
    """Yield the names of the constants that are `tensor`, turned or as it is."""
    for index, _ in network.readers.get(tensor, ()):
        node = network.nodes[index]
        if key_of(node) in PASSING and node.output[0] in network.constants:
            yield node.output[0]
            yield from passing_on(network, node.output[0])
