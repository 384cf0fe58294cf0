"""Outputs that hold several things beside one another, as the boxes and the scores of a detector, joined by a Concat."""

from collections.abc import Mapping, Sequence
from math import prod

from onnx import NodeProto

from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import attribute, key_of

ELEMENTWISE = frozenset(
    ["Add", "Cast", "Clip", "Div", "Exp", "HardSigmoid", "Identity", "Mul", "Pow", "Relu", "Sigmoid", "Sub", "Tanh"]
)
"""Operators behind a Concat that leave every number at its place."""
DEPTH = 40
"""Nodes between an output and the Concat that are looked through."""

Seams = Mapping[int, tuple[int, ...]]
"""By axis, where the next part begins."""


def seams(network: Network, shapes: Mapping[str, tuple[int, ...]], output: str) -> Seams:
    """Return, by axis, at which positions of `output` another input of a Concat begins; the axis of samples is left out.

    shapes: of the activations, (samples, ...).
    """
    search = _Search(network, shapes)
    found = {axis: search.inside(output, axis, DEPTH) for axis in range(1, len(shapes.get(output, ())))}
    return {axis: tuple(sorted(places)) for axis, places in found.items() if places}


class _Search:
    """Goes back from a tensor to the Concat that makes it; what was found of each tensor and axis is kept."""

    def __init__(self, network: Network, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._network, self._shapes = network, shapes
        self._made = {name: index for index, node in enumerate(network.nodes) for name in node.output}
        self._known: dict[tuple[str, int], frozenset[int]] = {}

    def inside(self, tensor: str, axis: int, depth: int) -> frozenset[int]:
        """Return where parts of a tensor begin on an axis, seen through at most `depth` nodes."""
        if tensor not in self._made or tensor not in self._shapes or not depth:
            return frozenset()
        if (tensor, axis) not in self._known:
            self._known[tensor, axis] = self._look(self._network.nodes[self._made[tensor]], tensor, axis, depth - 1)
        return self._known[tensor, axis]

    def _look(self, node: NodeProto, tensor: str, axis: int, depth: int) -> frozenset[int]:
        shape = self._shapes[tensor]
        inputs = [name for name in node.input if self._shapes.get(name)]
        key = key_of(node)
        if key == "Concat":
            at = int(attribute(node, "axis"))  # type: ignore[call-overload]  # an integer, always there
            if at % len(shape) == axis:
                return self._joined(inputs, axis, shape[axis], depth)
            each = [self.inside(name, axis, depth) for name in inputs]
            return frozenset.intersection(*each) if each else frozenset()
        if key in ELEMENTWISE:
            alike = [n for n in inputs if len(self._shapes[n]) == len(shape) and self._shapes[n][axis] == shape[axis]]
            return frozenset[int]().union(*(self.inside(name, axis, depth) for name in alike))
        if key == "Transpose" and inputs:
            order = attribute(node, "perm") or tuple(reversed(range(len(shape))))
            return self.inside(inputs[0], order[axis], depth)  # type: ignore[index]  # integers
        if key == "Reshape" and inputs:
            before, ahead = self._shapes[inputs[0]], prod(shape[:axis])
            same = [at for at, size in enumerate(before) if size == shape[axis] and prod(before[:at]) == ahead]
            return self.inside(inputs[0], same[0], depth) if same else frozenset()
        return frozenset()

    def _joined(self, inputs: Sequence[str], axis: int, size: int, depth: int) -> frozenset[int]:
        found, start = set[int](), 0
        for name in inputs:
            found |= {start} | {start + place for place in self.inside(name, axis, depth)}
            start += self._shapes[name][axis]
        return frozenset(found - {0}) if start == size else frozenset()
