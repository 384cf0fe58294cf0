"""The bias of a product without one whose residual branch goes as a whole: what the branch added on average."""

from collections.abc import Collection
from dataclasses import replace

from onnx_subprune.graph.channels import ChannelGraph, Contraction, Use


def empty_bias(contraction: Contraction) -> Use | None:
    """Return the slot, one that the operator does not have, that stands for the bias of a product without any; None for other contractions.

    What is in it is added to the product (`operators.biased`), or, where the product reads nothing, takes its place.
    """
    none = contraction.bias is None and contraction.new_bias is None and not contraction.stacked
    return Use(contraction.node, 2) if none and contraction.op == "MatMul" and contraction.weight.slot == 1 else None


def mean_of(graph: ChannelGraph, contraction: Contraction) -> Use | None:
    """Return the same where the product has a weight for itself that is refitted."""
    return empty_bias(contraction) if graph.alone(contraction.weight) else None


def with_biases(graph: ChannelGraph, nodes: Collection[str]) -> ChannelGraph:
    """Return the graph whose products at `nodes` take a bias, where they have a weight for themselves and no bias."""
    new = {
        item.weight: replace(item, new_bias=mean_of(graph, item))
        for item in graph.contractions
        if item.node in nodes and mean_of(graph, item) is not None
    }
    if not new:
        return graph
    groups = tuple(
        replace(
            group,
            consumers=tuple(
                replace(item, contraction=new.get(item.weight, item.contraction)) for item in group.consumers
            ),
        )
        for group in graph.groups
    )
    contractions = tuple(new.get(item.weight, item) for item in graph.contractions)
    return replace(graph, groups=groups, contractions=contractions)
