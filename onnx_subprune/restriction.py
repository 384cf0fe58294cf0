"""What of a model may be pruned, and to which widths: the user's patterns and multiples."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np

from onnx_subprune.allocation import Room
from onnx_subprune.errors import OptionError
from onnx_subprune.graph.channels import ChannelGraph, ChannelGroup, Pinned
from onnx_subprune.graph.model import Network


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

    left = [group for group in graph.groups if (not only or hit(group, only)) and not hit(group, exclude)]
    gone = [group for group in graph.groups if group not in left]
    if not left:
        raise OptionError(
            "nothing is left to prune: "
            + (f"{len(gone)} groups are excluded" if gone else "see the reasons in `inspect`")
        )
    pinned = [
        Pinned(node=node, axis=contraction.output, width=group.width, reason="it is excluded by an option")
        for group in gone
        for node in group.producers
        for contraction in graph.contractions
        if contraction.node == node
    ]
    return replace(graph, groups=tuple(left), pinned=(*graph.pinned, *pinned))


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
    return [
        Room(group.name, group.width, int(np.lcm(group.step, round_to)), min(max(min_width, 1), group.width))
        for group in graph.groups
    ]
