"""Products of two activations (Q and K): which constants have to be zero for a channel to add nothing to one.

Walks back from an input of the product to the layers that make it, through operators that leave zeros alone; a rotation of positions does where both
numbers of a pair are. Others (normalisations, cosines) end the way, and the channels stay.
"""

from collections.abc import Sequence

from onnx_subprune.graph.channels import ChannelGroup, Slice, Use
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import key_of

MOVING = frozenset(
    ("Cast", "Dropout", "Gather", "Identity", "Neg", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
)
"""Operators of one activation that move its numbers about, or turn their sign."""
DEEPEST = 64
"""Nodes that a way may have."""


def silencers_of(network: Network, group: ChannelGroup, tensor: str) -> tuple[Slice, ...] | None:
    """Return the constants that make the channels of `group` in `tensor`, where they lie on them; None if zeros there are not zeros in `tensor`."""
    uses = _makers(network, tensor, DEEPEST)
    if uses is None:
        return None
    found = [part for part in group.slices if part.axis.use in uses]
    return tuple(found) if len(found) == len(uses) else None


def _makers(network: Network, tensor: str, depth: int) -> frozenset[Use] | None:
    """Weights and biases of the layers that make `tensor`; None where something in between does not leave zeros alone."""
    place = network.producer.get(tensor)
    if place is None or not depth:
        return None
    node, label = network.nodes[place], network.labels[place]
    constant = [name in network.constants for name in node.input]
    key = key_of(node)

    def behind(names: Sequence[str]) -> list[frozenset[Use] | None]:
        return [_makers(network, name, depth - 1) for name in names]

    if key in MOVING and not constant[0]:
        return behind(node.input[:1])[0]
    if key in ("MatMul", "Gemm", "Conv") and constant[:2] == [False, True]:
        biased = len(node.input) > 2 and bool(node.input[2])
        if biased and not constant[2]:
            return None
        return frozenset([Use(label, 1), *([Use(label, 2)] if biased else [])])
    if key == "Div" and not constant[0]:
        return behind(node.input[:1])[0]
    if key == "Mul":  # one factor that is zero will do
        factors = behind([name for name, known in zip(node.input, constant, strict=True) if not known])
        return next((found for found in factors if found is not None), None)
    if key in ("Add", "Sub", "Concat"):
        terms = behind([name for name, known in zip(node.input, constant, strict=True) if not known])
        own = frozenset(Use(label, slot) for slot, known in enumerate(constant) if known)
        return None if None in terms or not terms else own.union(*(term for term in terms if term is not None))
    return None
