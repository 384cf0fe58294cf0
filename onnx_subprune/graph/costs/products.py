"""What products of activations multiply, as functions of the widths of groups."""

from onnx_subprune.allocation import Term
from onnx_subprune.graph.channels import Axis, ChannelGraph, Use
from onnx_subprune.graph.costs.count import ATTENTION, FUSED_MATMUL, UNPACKED
from onnx_subprune.graph.costs.sizes import Sizes, folded, shape_of
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import attribute, key_of


def product_of_activations(network: Network, graph: ChannelGraph, label: str, sizes: Sizes) -> list[Term]:
    """Return the terms of a product of two activations, or of an operator of attention; none for others."""
    return _attention(network, graph, label, sizes) or _product(network, graph, label, sizes)


def _product(network: Network, graph: ChannelGraph, label: str, sizes: Sizes) -> list[Term]:
    """What products of activations multiply; nothing for others."""
    node, shapes = network.node(label), graph.observation.shapes
    inner = shapes.get(node.input[0], ()) if node.input else ()
    product = key_of(node) in ("MatMul", FUSED_MATMUL) and node.output[0] in shapes
    if not product or not inner or network.constants.issuperset(node.output):
        return []
    summed = len(inner) - (2 if attribute(node, "transA", 0) else 1)
    factors = [*sizes.activation(node.output[0]), sizes.factor(Axis(node.input[0], summed), inner[summed])]
    return [folded(1.0 / graph.observation.batch, factors)]


def _attention(network: Network, graph: ChannelGraph, label: str, sizes: Sizes) -> list[Term]:
    """What operators of attention multiply; nothing for others, and where they have other inputs than queries, keys and values."""
    node, shapes, batch = network.node(label), graph.observation.shapes, graph.observation.batch
    known = [name for name in node.input[:2] if name in shapes]
    if key_of(node) in UNPACKED and len(known) == 2 and node.output[0] in shapes:
        length = shapes[known[1]][-2]
        return [folded(length / batch, sizes.activation(name)) for name in (known[0], node.output[0])]
    if key_of(node) == ATTENTION and known == [node.input[0]] and node.output[0] in shapes:
        name, use = node.input[1], Use(label, 1)
        columns = sizes.factor(Axis(name, 1, use), shape_of(network, name)[1])
        data, half = sizes.activation(known[0]), shapes[known[0]][1] / 2 / batch
        scores = [folded(half, [*data[:2], columns]), folded(half, sizes.activation(node.output[0]))]
        return [folded(1.0 / batch, [*data, columns]), *scores]
    return []
