"""The work of what is neither multiplied nor fused into a layer.

Runtimes fuse many nodes into the layer before, and some only name a tensor anew. What an operator is does not say so, what it reads does: a Relu behind
a convolution that nothing else reads is fused into it; what is added to a tensor that is read elsewhere too takes as long as its multiplication.
"""

from collections.abc import Collection

from onnx import NodeProto

from onnx_subprune.allocation import Term
from onnx_subprune.graph.channels import ChannelGraph
from onnx_subprune.graph.costs.count import COUNTED
from onnx_subprune.graph.costs.sizes import Sizes, folded
from onnx_subprune.graph.folding.fold import foldable
from onnx_subprune.graph.network import Network, only_reader
from onnx_subprune.graph.operators import key_of

POINTWISE = 12.0
"""Work of a number that an operator makes which is not fused."""

VIEWS = frozenset(["Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"])
ACTIVATIONS = frozenset(["BatchNormalization", "Clip", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Tanh"])


def pointwise(network: Network, graph: ChannelGraph, sizes: Sizes) -> list[Term]:
    """Return the work of these nodes; of those that the written model does without, none."""
    return _terms(network, graph, sizes, without=_gone(network)) if sizes.timed else []


def saved(network: Network, graph: ChannelGraph, sizes: Sizes) -> float:
    """Return the work of those that the written model does without, at full widths."""
    gone = _gone(network) if sizes.timed else frozenset[str]()
    terms = _terms(network, graph, sizes, without=frozenset(network.labels) - gone) if gone else []
    return sum(term.at(sizes.widths) for term in terms)


def _gone(network: Network) -> frozenset[str]:
    """Labels of the nodes that are folded in the end."""
    places = (network.producer.get(name) for name in foldable(network.given))
    return frozenset(network.labels[place] for place in places if place is not None)


def _terms(network: Network, graph: ChannelGraph, sizes: Sizes, without: Collection[str]) -> list[Term]:
    terms = []
    contracting = {contraction.node for contraction in graph.contractions}
    within = {name for item in network.spelled.closed for name in item.spelled[:-1]}
    multiplying = {label for label, node in zip(network.labels, network.nodes, strict=True) if key_of(node) in COUNTED}
    free, layers = fused(network, multiplying), contracting | multiplying
    ends = {item.spelled[-1] for item in network.spelled.closed}  # a normalisation, not what it is spelled out in
    for label, node in zip(network.labels, network.nodes, strict=True):
        made = next((name for name in node.output if name in graph.observation.shapes), None)
        if (
            not network.constants.issuperset(node.output)
            and made is not None
            and made not in within
            and label not in without
            and label not in layers
            and (made in ends or label not in free)
        ):
            term = folded(POINTWISE / graph.observation.batch, sizes.activation(made))
            terms.append(sizes.vanishing.gated([label], term))
    return terms


def fused(network: Network, layers: Collection[str]) -> frozenset[str]:
    """Return the labels of nodes that take hardly any time; layers: labels of those that multiply, into which others are fused."""
    found, into = set[str](), set(layers)
    for label, node in zip(network.labels, network.nodes, strict=True):
        kind = key_of(node)
        sources = [name for name in node.input if name and name not in network.constants]
        behind = [name for name in sources if _follows(network, name, into)]
        if kind in VIEWS:
            found.add(label)
            if behind:
                into.add(label)
        elif behind and (kind in ACTIVATIONS or (kind == "Add" and not _scalar(network, node))):
            found.add(label)
            into.add(label)
        elif kind in ("HardSigmoid", "Sigmoid") and _swish(network, node):
            found.add(label)
    return frozenset(found)


def _follows(network: Network, name: str, into: Collection[str]) -> bool:
    """True if a tensor is made by one of these nodes, and read once."""
    place = network.producer.get(name)
    return place is not None and network.labels[place] in into and only_reader(network, name) is not None


def _scalar(network: Network, node: NodeProto) -> bool:
    """True if a node adds one number, which is no bias and no shortcut."""
    return any(name in network.constants and network.array(name).size == 1 for name in node.input)


def _swish(network: Network, node: NodeProto) -> bool:
    """Return whether a sigmoid is that of x sigmoid(x), which is computed in one go."""
    reader = only_reader(network, node.output[0])
    other = None if reader is None else network.nodes[reader[0]]
    return other is not None and key_of(other) == "Mul" and node.input[0] in other.input
