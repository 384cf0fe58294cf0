"""What of a model may be pruned, and to which widths: the user's patterns and multiples, and what memory allows."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np

from onnx_subprune.allocation import Room
from onnx_subprune.errors import OptionError
from onnx_subprune.graph.channels import ChannelGraph, ChannelGroup, Contraction, Pinned
from onnx_subprune.graph.model import Network

COLUMNS = 12_288
"""Most inputs that a layer may sum over to be refitted: their Gram alone takes 1.2 GB, and a few are alive at once."""


def oversized(network: Network, contraction: Contraction) -> bool:
    """True if a contraction sums over too many inputs to take its moments."""
    return _columns(network, contraction) > COLUMNS


def _columns(network: Network, contraction: Contraction) -> int:
    tensor = network.initializers.get(contraction.weight_tensor)
    shape = tuple(tensor.dims) if tensor is not None else network.array(contraction.weight_tensor).shape
    taps = int(np.prod(shape[2:])) if contraction.op in ("Conv", "ConvTranspose") else 1
    return int(shape[contraction.rows.index]) // (contraction.groups if contraction.op == "ConvTranspose" else 1) * taps


def restricted(graph: ChannelGraph, network: Network, *, only: Sequence[str], exclude: Sequence[str]) -> ChannelGraph:
    """Return `graph` without the groups that `exclude` names or `only` does not; OptionError for a pattern without a match."""
    names = {group.name: _names_of(group, network) for group in graph.groups}
    everything = set().union(*names.values(), *({c.node, c.weight_tensor, f"op:{c.op}"} for c in graph.contractions))
    for option, patterns in (("--only", only), ("--exclude", exclude)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in everything):
                raise OptionError(f"{option} {pattern!r} matches no group, node or weight; `inspect` lists them")

    def hit(group: ChannelGroup, patterns: Iterable[str]) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns for name in names[group.name])

    reasons = {group.name: _too_large(group, network) for group in graph.groups}
    for group in graph.groups:
        if (only and not hit(group, only)) or hit(group, exclude):
            reasons[group.name] = "it is excluded by an option"
    left = [group for group in graph.groups if reasons[group.name] is None]
    if not left:
        found = sorted({reason for reason in reasons.values() if reason is not None})
        raise OptionError(f"nothing is left to prune: {'; '.join(found) or 'see the reasons in `inspect`'}")
    pinned = [
        Pinned(node=node, axis=contraction.output, width=group.width, reason=reason)
        for group in graph.groups
        if (reason := reasons[group.name]) is not None
        for node in group.producers
        for contraction in graph.contractions
        if contraction.node == node
    ]
    return replace(graph, groups=tuple(left), pinned=(*graph.pinned, *pinned))


def _too_large(group: ChannelGroup, network: Network) -> str | None:
    for consumer in group.consumers:
        if oversized(network, consumer.contraction):
            return f"{consumer.node} sums over {_columns(network, consumer.contraction):,} inputs, too many to take their moments (limit {COLUMNS:,})"
    return None


def _names_of(group: ChannelGroup, network: Network) -> set[str]:
    producers = {
        name
        for node in group.producers
        for name in (node, f"op:{network.node(node).op_type}", *network.node(node).input[1:2])
    }
    return {group.name, *producers}


def rooms_of(graph: ChannelGraph, *, round_to: int, min_width: int) -> list[Room]:
    """Return the widths that each group may have."""
    if round_to < 1 or min_width < 1:
        raise OptionError("--round-to and --min-width are at least 1")
    whole = [Room(group.name, group.width, group.step, min_width, group.step) for group in graph.groups]
    return [room.rounded(round_to) for room in whole]
