"""What is left of the cost of nodes that nobody reads where a residual branch goes as a whole: nothing."""

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TypeVar

from onnx_subprune.allocation import Factor, Term
from onnx_subprune.allocation.multilinear import Tabulated
from onnx_subprune.graph.channels import Axis, ChannelGraph
from onnx_subprune.graph.contractions.ends import empty_bias
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.tracing.branches import blocks

Some = TypeVar("Some", Term, Tabulated)


class Vanishing:
    """Knows with which groups nodes go that are not read where those have no channels."""

    def __init__(self, network: Network, graph: ChannelGraph) -> None:
        self._widths = {group.name: group.width for group in graph.groups}
        self._with: dict[str, set[str]] = {}
        self._ends = set[str]()
        self._blocks = blocks(network, graph)
        for name, block in self._blocks.items():
            for place in block.unread:
                self._with.setdefault(network.labels[place], set()).add(name)
            self._ends.update(network.labels[place] for branch in block.ends for place in branch.places)

    def stored(self, labels: Collection[str], term: Some) -> Some:
        """Return the cost of a constant that nodes of these labels read, all that do; biases at the end of a branch stay, as what that adds."""
        return term if self._ends.intersection(labels) else self.gated(labels, term)

    def means(self, channels: Callable[[Axis], Factor]) -> list[Term]:
        """Return what stands in the place of branches that end with a product without a bias: a number a channel, where the branch is gone."""
        terms = list[Term]()
        for name, block in self._blocks.items():
            gate = Factor(offset=0.0, slopes={name: 1}, block=self._widths[name])
            for end in block.ends:
                if empty_bias(end.contraction) is not None:
                    factor = channels(end.contraction.output)
                    terms += [Term(1.0, (factor,)), Term(-1.0 / self._widths[name], (factor, gate))]
        return terms

    def added(self, channels: Callable[[Axis], Factor]) -> list[Term]:
        """Return the constants beside the bias of what stands in the place of branches in maps: two numbers a channel, where the branch is gone."""
        terms = list[Term]()
        for name, block in self._blocks.items():
            width = self._widths[name]
            gate = Factor(offset=0.0, slopes={name: 1}, block=width)
            for end in block.ends if all(end.behind for end in block.ends) else ():
                factor = channels(end.contraction.output)
                terms += [Term(2.0, (factor,)), Term(-2.0 / width, (factor, gate))]
        return terms

    def gated(self, labels: Collection[str], term: Some) -> Some:
        """Return the cost of what is gone where any group has no channels with which all nodes of these labels go."""
        for name in sorted(set.intersection(*(self._with.get(label, set()) for label in labels))):
            if not any(not factor.offset and factor.slopes.keys() == {name} for factor in term.factors):
                width = self._widths[name]
                gate = Factor(offset=0.0, slopes={name: 1}, block=width)  # the full width, or nothing
                term = replace(term, coefficient=term.coefficient / width, factors=(*term.factors, gate))
        return term
