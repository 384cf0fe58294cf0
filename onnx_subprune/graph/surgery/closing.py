"""Normalisations in the nodes of the file again, with other scales and epsilons where these have been fitted: undoes `spelling`."""

from collections.abc import Callable

import numpy as np
from onnx import NodeProto, helper

from onnx_subprune._typing import Array
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.normalization import Closed, Mean, Place
from onnx_subprune.graph.statistics import operand

ALIKE = 1e-5
"""Relative difference of weights that are the same."""


class Closing:
    """Puts back the nodes of the file that were spelled out, where nothing but their constants has changed.

    named: from a place in the network to the constant there in the new model; valued: to its value.
    """

    def __init__(self, network: Network, named: Callable[[Use, str], str], valued: Callable[[str], Array]) -> None:
        self._network, self._named, self._valued = network, named, valued
        self._first: dict[str, Closed] = {}
        self._inside: set[str] = set()
        for item in network.spelled.closed:
            if all(self._whole(mean) for mean in item.means):
                self._first[item.spelled[0]] = item
                self._inside.update(item.spelled)

    @property
    def between(self) -> set[str]:
        """Tensors between nodes that are put back together: what is declared of their sizes holds no longer."""
        return {item.node.output[0] for item in self._first.values()} - self._inside

    def closed(self, node: NodeProto) -> list[NodeProto] | None:
        """Return what stands in the place of a node of the network: a node of the file, nothing, or None for itself."""
        name = node.output[0] if node.output else ""
        if name not in self._inside:
            return None
        return [self._node(self._first[name])] if name in self._first else []

    def _place(self, place: Place) -> str:
        return self._named(*operand(self._network, place))

    def _whole(self, mean: Mean) -> bool:
        """True if all channels that are left count, each as much as it does in the file's own node."""
        weight = self._valued(self._place((mean.weighed, 1))).astype(np.float64)
        wanted = 1.0 if mean.number else 1.0 / max(weight.size, 1)
        return bool(weight.size) and bool(np.all(np.abs(weight - wanted) <= ALIKE * wanted))

    def _node(self, item: Closed) -> NodeProto:
        names = {slot: self._place(place) for slot, place in item.slots}
        changed = {slot: name for slot, name in names.items() if name != item.node.input[slot]}
        epsilon = None
        if item.epsilon is not None:
            use, old = operand(self._network, item.epsilon)
            before, after = self._network.array(old), self._valued(self._named(use, old))
            epsilon = float(after.item()) if after != before else None
        if not changed and epsilon is None:
            return item.node
        node = NodeProto()
        node.CopyFrom(item.node)
        for slot, name in changed.items():
            node.input[slot] = name
        if epsilon is not None:
            kept = [held for held in node.attribute if held.name != "epsilon"]
            del node.attribute[:]
            node.attribute.extend(kept)
            node.attribute.append(helper.make_attribute("epsilon", epsilon))
        return node
