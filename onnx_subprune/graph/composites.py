"""Layers that are more than one product with weights, attention and recurrent layers, with their sizes in words."""

from dataclasses import dataclass

from onnx_subprune.graph.attention import attentions
from onnx_subprune.graph.channels import ChannelGraph
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import attribute, key_of
from onnx_subprune.graph.separation import RECURRENT


@dataclass(frozen=True, slots=True)
class Composite:
    """A layer at `node` of this kind, "attention" or the name of a recurrent operator."""

    node: str
    kind: str
    size: str


def composites(network: Network, graph: ChannelGraph) -> tuple[Composite, ...]:
    """Return the attention and the recurrent layers of `network`, of whose tensors `graph` has the shapes."""
    found = []
    for item in attentions(network, graph):
        heads = f"{item.heads}{f' ({item.grouped} of k and v)' * (item.grouped != item.heads)}"
        found.append(Composite(item.node, "attention", f"heads {heads}, q/k {item.numbers[0]}, v {item.numbers[1]}"))
    for label, node in zip(network.labels, network.nodes, strict=True):
        if key_of(node) in RECURRENT and node.input[2] in network.initializers:
            both = attribute(node, "direction") in (b"bidirectional", "bidirectional")
            units = attribute(node, "hidden_size", network.initializers[node.input[2]].dims[-1])
            found.append(Composite(label, node.op_type, f"units {units}{' in each of two directions' * both}"))
    return tuple(found)
