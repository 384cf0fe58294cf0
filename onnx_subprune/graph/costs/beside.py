"""The time of nodes that are no layers as a function of widths: it goes with the numbers that they read or make, products with their sums as well."""

from collections.abc import Mapping, Sequence
from typing import cast

from onnx_subprune.allocation import Factor, Term
from onnx_subprune.graph.channels import Axis, ChannelGraph
from onnx_subprune.graph.costs.count import COUNTED
from onnx_subprune.graph.costs.pointwise import pointwise
from onnx_subprune.graph.costs.sizes import Sizes, folded
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import key_of


class Beside:
    """Terms for the nodes of a table that are no layers.

    A node is found by the tensor that it makes. One that onnxruntime made itself, as a fused normalisation, is taken for the mean of those whose tensors
    have its shape, and one that is like none for what all of them are together.
    """

    def __init__(self, network: Network, graph: ChannelGraph, sizes: Sizes) -> None:
        self._network, self._graph, self._sizes = network, graph, sizes
        self._alike: dict[tuple[int, ...], list[str]] = {}
        self._all = pointwise(network, graph, sizes)
        layers = {contraction.node for contraction in graph.contractions}
        for label, node in zip(network.labels, network.nodes, strict=True):
            for name in node.output:
                if label not in layers and name in graph.observation.shapes and name not in network.constants:
                    self._alike.setdefault(tuple(graph.observation.shapes[name][1:]), []).append(name)

    def terms(self, other: Mapping[str, object]) -> list[Term]:
        """Return the terms of one row of the table's `others`."""
        name, spent = str(other["tensor"]), float(cast("float", other["ms"]))
        shape = tuple(cast("Sequence[int]", other["shape"]))
        if name in self._network.producer and name in self._graph.observation.shapes:
            return self._shared([self._gated(name, self._term(name))], spent)
        names = self._alike.get(shape[1:], []) if len(shape) > 1 else []
        if names:
            return self._shared([self._gated(name, folded(1.0, self._sizes.activation(name))) for name in names], spent)
        return self._shared(self._all, spent)

    def _gated(self, name: str, term: Term) -> Term:
        """The term of a node that makes `name`, which may go with others."""
        return self._sizes.vanishing.gated([self._network.labels[self._network.producer[name]]], term)

    def _term(self, name: str) -> Term:
        """What a node that makes `name` goes with: the larger one of that tensor and its first input; a product, its columns times what it sums up."""
        node, shapes = self._network.nodes[self._network.producer[name]], self._graph.observation.shapes
        source = next((item for item in node.input if item), "")
        factors = self._sizes.activation(name)
        if source not in shapes:
            return folded(1.0, factors)
        if key_of(node) in COUNTED and shapes[source]:
            last = len(shapes[source]) - 1
            summed: Factor = self._sizes.factor(Axis(source, last), shapes[source][last])
            return folded(1.0, [*factors, summed])
        found = [folded(1.0, factors), folded(1.0, self._sizes.activation(source))]
        return max(found, key=lambda term: term.at(self._sizes.widths))

    def _shared(self, terms: Sequence[Term], spent: float) -> list[Term]:
        """The terms, scaled so that together they are `spent` at full widths."""
        whole = sum(term.at(self._sizes.widths) for term in terms)
        if whole <= 0.0:
            return [Term(spent, ())]
        return [Term(term.coefficient * spent / whole, term.factors) for term in terms]
