"""What of a model may be pruned: the user's patterns, and what memory allows."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from onnx_subprune.calibration.moments.limits import COLUMNS, _columns, oversized
from onnx_subprune.errors import OptionError, meant
from onnx_subprune.graph.channels import BY_OPTION, ChannelGraph, ChannelGroup, Contraction, Pinned
from onnx_subprune.graph.costs.layers import layers
from onnx_subprune.graph.network import Network, check_computes

BLOCK = 256
"""Most inputs that a channel of a larger layer may own: choosing works on a channel's own block of the Gram as a whole."""
NAMED = 3
"""Layers that are named where nothing can be pruned."""


def restricted(
    graph: ChannelGraph,
    network: Network,
    *,
    only: Sequence[str],
    exclude: Sequence[str],
    samples: int | None = None,
    products: bool = True,
) -> ChannelGraph:
    """Return `graph` without the groups that `exclude` names or `only` does not; OptionError for a pattern without a match.

    Raises ModelError for a model whose weights are no numbers. samples: how many there are to take moments from; None where these come without their rows.
    products: False where there are moments alone, so that what products of activations sum over stays, and what normalisations take statistics of.
    """
    check_computes(network)
    names = {group.name: _names_of_group(group, graph, network) for group in graph.groups}
    everything = set[str]().union(*names.values(), *(_names_of(item, network) for item in graph.contractions))
    for option, patterns in (("--only", only), ("--exclude", exclude)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in everything):
                like = meant(pattern, everything)
                raise OptionError(f"{option} {pattern!r} matches no group, node or weight{like} `inspect` lists them")

    def hit(group: ChannelGroup, patterns: Iterable[str]) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns for name in names[group.name])

    reasons = {group.name: _too_large(graph, group, network, samples) for group in graph.groups}
    for group in graph.groups:
        if group.product is not None and not products:
            reasons[group.name] = (
                f"moments say nothing about {group.product.node}, a product of activations: give --data"
            )
        if graph.normalized(group) and not products:
            reasons[group.name] = (
                "moments say nothing about a normalisation that takes its statistics of it: give --data"
            )
        if (only and not hit(group, only)) or hit(group, exclude):
            reasons[group.name] = BY_OPTION
    left = [group for group in graph.groups if reasons[group.name] is None]
    if not left:
        found = sorted({reason for reason in reasons.values() if reason is not None})
        raise OptionError(f"nothing is left to prune: {'; '.join(found or _largest_of(graph, network))}")
    pinned = [
        Pinned(node=contraction.node, axis=contraction.output, width=group.width, reason=reason)
        for group in graph.groups
        if (reason := reasons[group.name]) is not None
        for contraction in makers_of(group, graph)
    ]
    return replace(graph, groups=tuple(left), pinned=(*graph.pinned, *pinned))


def _too_large(graph: ChannelGraph, group: ChannelGroup, network: Network, samples: int | None) -> str | None:
    for consumer in group.consumers:
        columns = _columns(network, consumer.contraction)
        if oversized(graph, network, consumer.contraction, samples) or (
            columns > COLUMNS and consumer.positions[0].size > BLOCK
        ):
            return f"{consumer.node} sums over {columns:,} inputs, too many to take their moments (limit {COLUMNS:,})"
    return None


def _largest_of(graph: ChannelGraph, network: Network) -> list[str]:
    """Why the largest layers of a model in which no channels are free stay."""
    found = sorted(layers(network, graph).staying, key=lambda item: (-item.params, -item.macs))
    rest = ["`inspect` lists all layers"] if len(found) > NAMED else []
    return [*(f"{item.node} stays, {item.reason}" for item in found[:NAMED]), *rest] or ["there are no weights"]


def makers_of(group: ChannelGroup, graph: ChannelGraph) -> list[Contraction]:
    """Return the contractions that make the channels of a group."""
    made = {part.axis for part in group.slices}
    return [item for item in graph.contractions if item.node in group.producers and item.output in made]


def _names_of(contraction: Contraction, network: Network) -> set[str]:
    """What a layer goes by: its node and operator, its weight and bias, and the constants of the file that these are computed from."""
    uses = (contraction.weight, contraction.bias)
    tensors = [network.node(use.node).input[use.slot] for use in uses if use is not None]
    return {contraction.node, f"op:{contraction.op}", *network.ancestors(tensors, ())[1]}


def _names_of_group(group: ChannelGroup, graph: ChannelGraph, network: Network) -> set[str]:
    """What a group goes by: its own name, those of the layers that make its channels, and constants that lose channels, but for what reads them."""
    read = {contraction.rows for contraction in graph.contractions}
    uses = {part.axis.use for part in group.slices if part.axis not in read} - {None}
    tensors = [network.node(use.node).input[use.slot] for use in uses if use is not None]
    layers = (_names_of(item, network) for item in makers_of(group, graph))
    return {group.name, *network.ancestors(tensors, ())[1]}.union(*layers)
