"""Residual branches that a model can do without: what they add is then a constant."""

from collections.abc import Iterator

from onnx_subprune.graph.channels import ChannelGraph, Consumer
from onnx_subprune.graph.network import Network, key_of


def dispensable(network: Network, graph: ChannelGraph) -> frozenset[str]:
    """Return the names of the groups that may lose all their channels.

    Each of their consumers is a convolution that reads nothing else, and what it makes is added to a tensor of the same shape, which stays: of two
    branches that meet, one at most is named. No normalisation takes its statistics of them: of none there are none.
    """
    found, met = set[str](), set[str]()
    for group in graph.groups:
        if graph.normalized(group):
            continue
        sums = {end for consumer in group.consumers if (end := _sum(network, graph, consumer)) is not None}
        if group.consumers and len(sums) == len(group.consumers) and met.isdisjoint(sums):
            found.add(group.name)
            met |= sums
    return frozenset(found)


def normalizations(network: Network, tensor: str) -> Iterator[int]:
    """Yield the places of the BatchNormalizations that follow `tensor`, each the only reader of what is before it."""
    place = _reader(network, tensor)
    if place is not None and key_of(network.nodes[place]) == "BatchNormalization":
        yield place
        yield from normalizations(network, network.nodes[place].output[0])


def _reader(network: Network, tensor: str) -> int | None:
    """The place of the only node that reads `tensor`, which is no output of the model; None if there is none."""
    readers = network.readers.get(tensor, ())
    return readers[0][0] if len(readers) == 1 and readers[0][1] >= 0 and tensor not in network.outputs else None


def _sum(network: Network, graph: ChannelGraph, consumer: Consumer) -> str | None:
    """The sum that is all that a consumer's output goes into; None where it cannot be a constant there."""
    contraction = consumer.contraction
    rows = network.array(contraction.weight_tensor).shape[contraction.rows.index]
    if contraction.op != "Conv" or contraction.groups > 1 or consumer.positions.size < rows:
        return None
    made = contraction.output.tensor
    for place in normalizations(network, made):
        made = network.nodes[place].output[0]
    reader = _reader(network, made)
    if reader is None or key_of(network.nodes[reader]) != "Add":
        return None
    node = network.nodes[reader]
    other = node.input[1] if node.input[0] == made else node.input[0]
    for shapes in (graph.observation.shapes, graph.observation.other_shapes):
        if shapes and not (shapes.get(other) == shapes.get(made) == shapes.get(node.output[0])):
            return None
    return None if other in network.constants else node.output[0]
