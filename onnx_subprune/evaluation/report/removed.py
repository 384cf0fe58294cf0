"""Blocks that are gone as a whole, or may go, in words."""

from collections import Counter
from collections.abc import Collection

from onnx_subprune.graph.channels import ChannelGraph, Pinned
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import key_of
from onnx_subprune.graph.tracing.branches import Block, blocks

LISTED = 12
"""Blocks that are named; of more, the others are counted."""


def removed(network: Network, graph: ChannelGraph, empty: Collection[str]) -> list[str]:
    """Return what a report says of the blocks that went with the groups that are `empty`: nothing where there are none."""
    found = [block for name, block in blocks(network, graph).items() if name in empty]
    if not found:
        return []
    said = [_described(network, graph, block) for block in found[:LISTED]]
    said += [f"and {len(found) - LISTED} more"] if len(found) > LISTED else []
    what = (
        "1 block is gone as a whole, and what it added is"
        if len(found) == 1
        else f"{len(found)} blocks are gone as a whole, and what each added is"
    )
    return [f"{what} a constant: {'; '.join(said)}"]


def gone_with(network: Network, graph: ChannelGraph, empty: Collection[str]) -> dict[str, str]:
    """Return the groups that are not `empty` themselves, but lie in a block that went with one that is: which block that is, in words."""
    found = [block for name, block in blocks(network, graph).items() if name in empty]
    inside = dict[str, str]()
    for group in graph.groups if found else ():
        places = {network.position[node] for node in (*group.producers, *group.readers)}
        block = next((block for block in found if places <= block.unread), None)
        if block is not None and group.name not in empty:
            inside[group.name] = _described(network, graph, block)
    return inside


def still_pinned(network: Network, graph: ChannelGraph, empty: Collection[str]) -> tuple[Pinned, ...]:
    """Return what is pinned, without what went with the groups that are `empty`."""
    gone = {place for name, block in blocks(network, graph).items() if name in empty for place in block.unread}
    return tuple(item for item in graph.pinned if network.position[item.node] not in gone)


def removable(network: Network, graph: ChannelGraph) -> list[str]:
    """Return what `inspect` says of the blocks that may go as a whole: nothing where there are none."""
    kinds = Counter(kind(network, block) for block in blocks(network, graph).values())
    counts = [f"{count} {name}{'s' if count > 1 else ''}" for name, count in kinds.items()]
    return [f"May go as a whole, what they add is a constant then: {', '.join(counts)}."] if counts else []


def kind(network: Network, block: Block) -> str:
    """Return what a block is called."""
    operators = {key_of(network.nodes[place]) for place in block.unread}
    if "Softmax" in operators or any("Attention" in operator for operator in operators):
        return "attention block"
    last = {end.contraction.op for end in block.ends}
    return "feed-forward block" if last <= {"Gemm", "MatMul"} else "residual block"


def _described(network: Network, graph: ChannelGraph, block: Block) -> str:
    """One block, with its first and its last layer."""
    labels = {network.labels[place] for place in block.unread}
    layers = list(dict.fromkeys(item.node for item in graph.contractions if item.node in labels))
    ends = layers[0] if len(layers) == 1 else f"{layers[0]} to {layers[-1]}"
    return f"the {kind(network, block)} of {len(layers)} layer{'s' if len(layers) > 1 else ''} {ends}"
