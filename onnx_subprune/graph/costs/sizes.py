"""Sizes of axes as functions of the widths of groups, and their products."""

from dataclasses import replace

from onnx_subprune.allocation import Factor, Term
from onnx_subprune.graph.channels import Axis, ChannelGraph
from onnx_subprune.graph.costs.vanishing import Vanishing
from onnx_subprune.graph.network import Network

OVERHEAD = 1 / 4
"""What a convolution takes beside its outputs, in blocks of them."""
SINGLE = 1.65
"""What each of less than a block of channels takes that a convolution reads, in those of a whole one: they are read one by one, and reordered before."""


def shape_of(network: Network, name: str) -> tuple[int, ...]:
    """Return the shape of a constant."""
    return tuple(network.initializers[name].dims) if name in network.initializers else network.array(name).shape


class Sizes:
    """The size of any axis as a factor: offset + sum of slope * width."""

    def __init__(self, network: Network, graph: ChannelGraph, block: int = 1) -> None:
        self._network, self._graph, self._block = network, graph, block
        self._slopes: dict[Axis, dict[str, int]] = {}
        self.widths = {group.name: group.width for group in graph.groups}
        self.vanishing = Vanishing(network, graph)
        for group in graph.groups:
            for part in group.slices:
                self._slopes.setdefault(part.axis, {})[group.name] = part.positions.shape[1]

    def factor(self, axis: Axis, size: int) -> Factor:
        """Return the size of an axis that has `size` positions in the unpruned model."""
        slopes = self._slopes.get(axis, {})
        return Factor(offset=size - sum(self.widths[name] * slope for name, slope in slopes.items()), slopes=slopes)

    def read(self, factor: Factor) -> Factor:
        """The factor of the channels that a kernel reads."""
        return replace(factor, block=self._block, partial=SINGLE) if self._block > 1 else factor

    def written(self, factor: Factor) -> Factor:
        """The factor of the channels that a kernel writes."""
        return replace(factor, block=self._block, extra=OVERHEAD * self._block) if self._block > 1 else factor

    def carried(self, factor: Factor) -> Factor:
        """The factor of the channels that a depthwise convolution carries on."""
        return replace(factor, block=self._block) if self._block > 1 else factor

    @property
    def timed(self) -> bool:
        """True if work is not what is multiplied."""
        return self._block > 1

    def activation(self, tensor: str) -> list[Factor]:
        """Return the sizes of all axes of an activation."""
        shape = self._graph.observation.shapes[tensor]
        return [self.factor(Axis(tensor, index), size) for index, size in enumerate(shape)]


def folded(coefficient: float, factors: list[Factor]) -> Term:
    """Return the product of a coefficient and factors; what is constant of these is folded into the coefficient."""
    for factor in factors:
        if not factor.slopes:
            coefficient *= factor.at({})
    return Term(coefficient=coefficient, factors=tuple(f for f in factors if f.slopes))
