"""Attention as what it is: how many heads of how many numbers, and which of these can go.

Decomposed, it is a product of two activations, a Softmax over its last axis, and a product with a third; or it is an operator that runtimes fuse it into.
"""

from collections import Counter
from dataclasses import dataclass
from math import prod

from onnx_subprune.graph.channels import Axis, ChannelGraph
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.observation import Observation
from onnx_subprune.graph.operators import attribute, key_of

BETWEEN = frozenset(("Add", "Cast", "Div", "Dropout", "Identity", "IsNaN", "Mul", "Reshape", "Sub", "Where"))
"""Operators between a product and its Softmax, and behind that."""
REPEATED, NEAR = frozenset(("Expand", "Reshape", "Transpose")), 4
"""Operators that repeat heads, and how many of them."""
COUNTED = {
    "Attention": ("q_num_heads", "kv_num_heads"),
    "com.microsoft.Attention": ("num_heads", "num_heads"),
    "com.microsoft.GroupQueryAttention": ("num_heads", "kv_num_heads"),
    "com.microsoft.MultiHeadAttention": ("num_heads", "num_heads"),
}
"""Attributes that count heads of queries, and of keys and values."""


@dataclass(frozen=True, slots=True)
class Attention:
    """Attention at `node`: heads of queries and of keys and values, numbers of a head of Q and K, and of V. going: what can get less."""

    node: str
    heads: int
    grouped: int
    numbers: tuple[int, int]
    going: tuple[str, ...]

    def __str__(self) -> str:
        shared = f" ({self.grouped} of k and v)" if self.grouped != self.heads else ""
        qk, v = self.numbers
        going = f"{', '.join(self.going)} can go" if self.going else "all of it stays"
        return f"attention: {self.heads} head{'s' * (self.heads != 1)} of {v}{shared}, q/k {qk}, v {v}; {going}"


def attentions(network: Network, graph: ChannelGraph) -> tuple[Attention, ...]:
    """Return the attention of a model, in topological order."""
    found = []
    for place, node in enumerate(network.nodes):
        key = key_of(node)
        item = None
        if key in COUNTED:
            item = _fused(network, graph, place)
        elif key == "Softmax":
            item = _decomposed(network, graph, place)
        if item is not None:
            found.append(item)
    return tuple(found)


def attention_lines(network: Network, graph: ChannelGraph) -> list[str]:
    """Return what attention a model has in words, a line for each kind."""
    counts = Counter(str(item) for item in attentions(network, graph))
    return [f"{count} x {text}" if count > 1 else text for text, count in counts.items()]


def _decomposed(network: Network, graph: ChannelGraph, place: int) -> Attention | None:
    """Attention around a Softmax; None if it is another one."""
    scores = _product_behind(network, network.nodes[place].input[0])
    mixed = _product_ahead(network, network.nodes[place].output[0])
    if scores is None or mixed is None:
        return None
    shapes = graph.observation.shapes
    queries, values = network.nodes[scores].input[0], network.nodes[mixed].input[1]
    if len(shapes.get(queries, ())) < 2 or len(shapes.get(values, ())) < 2:
        return None
    heads = _heads(graph.observation, queries)
    going = _going(graph, network.labels[scores], values)
    numbers = shapes[queries][-1], shapes[values][-1]
    return Attention(
        network.labels[scores], heads, heads // _repeats(network, graph.observation, values), numbers, going
    )


def _fused(network: Network, graph: ChannelGraph, place: int) -> Attention | None:
    node, label, shapes = network.nodes[place], network.labels[place], graph.observation.shapes
    if key_of(node) == "Attention" and len(shapes.get(node.input[0], ())) == 4:
        queries, keys, values = (shapes[name] for name in node.input[:3])
        numbers = queries[-1], values[-1]
        own = keys[1] // _repeats(network, graph.observation, node.input[2])
        return Attention(label, queries[1], own, numbers, _going(graph, label, node.input[2]))
    heads, grouped = (attribute(node, name, 1) for name in COUNTED[key_of(node)])
    assert isinstance(heads, int)
    assert isinstance(grouped, int)
    made = shapes[node.output[0]][-1] // heads
    asked = made
    if key_of(node) == "com.microsoft.Attention":
        sizes = attribute(node, "qkv_hidden_sizes")
        asked = sizes[0] // heads if isinstance(sizes, list) and sizes else made
    elif len(shapes.get(node.input[0], ())) == 3:
        asked = shapes[node.input[0]][-1] // heads
    free = any(part.axis == Axis(node.output[0], 2) for group in graph.groups for part in group.slices)
    return Attention(label, heads, grouped, (asked, made), ("heads",) if free else ())


def _going(graph: ChannelGraph, product: str, values: str) -> tuple[str, ...]:
    """What of an attention can get less: heads, numbers of Q and K, numbers of V."""
    rank = len(graph.observation.shapes[values])
    axes = {part.axis for group in graph.groups for part in group.slices}
    found = ["heads"] if any(Axis(values, index) in axes for index in range(rank - 2)) else []
    found += (
        ["numbers of q and k"] if any(group.product and group.product.node == product for group in graph.groups) else []
    )
    return (*found, *(["numbers of v"] if Axis(values, rank - 1) in axes else []))


def _heads(observation: Observation, queries: str) -> int:
    """Heads have an axis of their own in front of the positions, or one with the samples."""
    shape = observation.shapes[queries]
    if len(shape) > 3:
        return shape[-3]
    return max(1, prod(shape[:-2]) // observation.batch)


def _repeats(network: Network, observation: Observation, tensor: str) -> int:
    """How often each head of a tensor was repeated, just before, for the queries that it serves."""
    for _ in range(NEAR):
        place = network.producer.get(tensor)
        if place is None or key_of(network.nodes[place]) not in REPEATED:
            return 1
        before = network.nodes[place].input[0]
        if key_of(network.nodes[place]) == "Expand":
            sizes = [prod(observation.shapes.get(name, ())) for name in (tensor, before)]
            return sizes[0] // max(sizes[1], 1)
        tensor = before
    return 1


def _product_behind(network: Network, tensor: str) -> int | None:
    """The product of two activations that a tensor of scores comes from."""
    waiting, seen = [tensor], set[str]()
    while waiting:
        name = waiting.pop()
        place = network.producer.get(name)
        if place is None or name in seen or name in network.constants:
            continue
        seen.add(name)
        node = network.nodes[place]
        if _multiplies(network, place):
            return place
        if key_of(node) in BETWEEN:
            waiting += node.input
    return None


def _product_ahead(network: Network, tensor: str) -> int | None:
    """The product whose first input a tensor of weights goes into."""
    waiting, seen = [tensor], set[str]()
    while waiting:
        name = waiting.pop()
        for place, slot in network.readers.get(name, ()):
            if _multiplies(network, place):
                return place if slot == 0 else None
            if key_of(network.nodes[place]) in BETWEEN and name not in seen:
                waiting += network.nodes[place].output
        seen.add(name)
    return None


def _multiplies(network: Network, place: int) -> bool:
    node = network.nodes[place]
    both = not any(name in network.constants for name in node.input[:2])
    return key_of(node) in ("MatMul", "com.microsoft.FusedMatMul") and both
