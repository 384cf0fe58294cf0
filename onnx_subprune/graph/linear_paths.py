"""Paths from a layer to what reads its output on which nothing tells the numbers of a head apart: these may be seen in another basis there.

Layouts may change on the way, all numbers may be multiplied by one, and attention mixes positions, not numbers. A bias is part of the layer.
"""

from dataclasses import dataclass
from math import prod

from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.observation import Observation
from onnx_subprune.graph.operators import attribute, key_of

LAYOUTS = frozenset(("Expand", "Identity", "Neg", "Reshape", "Squeeze", "Transpose", "Unsqueeze"))
"""Operators of one activation that keep all of its numbers; heads that serve several others are repeated."""
MIXING = {"Attention": 2, "MatMul": 1, "com.microsoft.FusedMatMul": 1}
"""Operators of activations that mix positions of the input in this slot."""
LONGEST = 64
"""Nodes that a path may have."""


@dataclass(frozen=True, slots=True)
class LinearPath:
    """A path that begins at the layer `node`. uses: its weight and bias.

    tensors: what lies on the path, from the layer on, or from where some of its outputs are taken: those from `start` to `stop`, of `width`, all of
    them if there is none. mixed: those whose positions a product of activations mixes; their last axis has the numbers of a head.
    """

    node: str
    uses: tuple[Use, ...]
    tensors: tuple[str, ...]
    start: int = 0
    stop: int = 0
    width: int = 0
    mixed: tuple[str, ...] = ()


def linear_path(
    network: Network, observation: Observation, tensor: str, *, through_attention: bool = False
) -> LinearPath | None:
    """Return the path that leads to `tensor`; None if there is no such path.

    through_attention: products of two activations may lie on it, which mix positions of their second input.
    """
    uses, passed, mixed = list[Use](), [tensor], list[str]()
    window, taken = (0, 0, 0), 0
    for _ in range(LONGEST):
        place = network.producer.get(passed[-1])
        if place is None:
            return None
        node, label = network.nodes[place], network.labels[place]
        known = [name in network.constants for name in node.input]
        key, behind = key_of(node), None
        if key in ("MatMul", "Gemm") and known[:2] == [False, True]:
            biased = len(known) > 2 and bool(node.input[2])
            if biased and not known[2]:
                return None
            uses += [Use(label, 1), *([Use(label, 2)] if biased else [])]
            tensors = tuple(reversed(passed[:taken] if taken else passed))
            return LinearPath(label, tuple(uses), tensors, *window, tuple(mixed))
        if key in LAYOUTS and not known[0]:
            behind = 0
        elif key in ("Slice", "Split") and not known[0] and not taken:
            found = _window(network, observation, place, passed[-1])
            if found is not None:
                window, taken, behind = found, len(passed), 0
        elif key in MIXING and through_attention and not any(known[: MIXING[key] + 1]):
            behind = MIXING[key]
            mixed.append(node.input[behind])
        elif key in ("Mul", "Div"):
            behind = next((slot for slot in (0, 1) if _alike(network, observation, node.input[1 - slot])), None)
            behind = None if key == "Div" and behind == 1 else behind
        elif key == "Add" and sum(known) == 1:
            uses.append(Use(label, known.index(True)))
            behind = known.index(False)
        if behind is None:
            return None
        passed.append(node.input[behind])
    return None


def _window(network: Network, observation: Observation, place: int, tensor: str) -> tuple[int, int, int] | None:
    """First and last of what a Split or Slice takes of the last axis for `tensor`, and the axis' size; None if it takes something of another."""
    node = network.nodes[place]
    before, after = observation.shapes[node.input[0]], observation.shapes[tensor]
    if before[:-1] != after[:-1] or before[-1] == after[-1]:
        return None
    start = 0
    if key_of(node) == "Split":
        names = list(node.output)
        start = sum(observation.shapes[name][-1] for name in names[: names.index(tensor)])
    else:
        given = attribute(node, "starts") if len(node.input) == 1 else None
        plain = len(node.input) < 5 or (
            node.input[4] in network.constants and bool((network.array(node.input[4]) == 1).all())
        )
        if len(node.input) > 1 and node.input[1] in network.constants and plain:
            given = network.array(node.input[1]).ravel().tolist()
        if not isinstance(given, list) or len(given) != 1:
            return None
        start = int(given[0]) % before[-1]
    return start, start + after[-1], before[-1]


def _alike(network: Network, observation: Observation, name: str) -> bool:
    """True if a tensor is a single number."""
    if name in network.constants:
        return network.array(name).size == 1
    shape = observation.shapes.get(name)
    return shape is not None and prod(shape) == 1 and not observation.varying_axes.get(name)
