"""`inspect` as plain values."""

from collections.abc import Mapping
from types import MappingProxyType

from onnx_subprune.calibration.shifts import rows_and_columns
from onnx_subprune.evaluation.report.removed import kind
from onnx_subprune.evaluation.report.table import group_share
from onnx_subprune.graph.attention import attentions
from onnx_subprune.graph.channels import ChannelGraph
from onnx_subprune.graph.costs.costs import Costs
from onnx_subprune.graph.costs.layers import layers
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.tracing.branches import blocks


def inspection_dict(
    network: Network, graph: ChannelGraph, costs: Costs, rows: Mapping[str, float] = MappingProxyType({})
) -> dict[str, object]:
    """Return groups with widths, producers, consumers and shares of the costs, what is pinned, and the layers with weights that stay.

    rows: by group, the rows that the samples give for each column of the consumer with the fewest.
    """
    groups, whole = [], blocks(network, graph)
    for group in graph.groups:
        params, macs = group_share(costs, group.name)
        groups.append(
            {
                "name": group.name,
                "width": group.width,
                "step": group.step,
                "producers": list(group.producers),
                "consumers": list(group.readers),
                "params": params,
                "macs": macs,
                "rows_a_column": rows.get(group.name),
                "goes_with": kind(network, whole[group.name]) if group.name in whole else None,
            }
        )
    pinned = [
        {"node": p.node, "tensor": p.axis.tensor, "axis": p.axis.index, "width": p.width, "reason": p.reason}
        for p in graph.pinned
    ]
    found = layers(network, graph)
    staying = [
        {"node": item.node, "op": item.op, "params": item.params, "macs": item.macs, "reason": item.reason}
        for item in found.staying
    ]
    return {
        "params": costs.params({}),
        "macs": costs.macs({}),
        "smaller": dict(zip(("params", "macs"), found.smaller, strict=True)),
        "sizes": sizes(graph),
        "made_up": sorted(graph.observation.invented),
        "attention": [
            {
                "node": item.node,
                "heads": item.heads,
                "kv_heads": item.grouped,
                "qk": item.numbers[0],
                "v": item.numbers[1],
                "going": list(item.going),
            }
            for item in attentions(network, graph)
        ],
        "groups": groups,
        "pinned": pinned,
        "staying": staying,
    }


def rows_a_column(network: Network, graph: ChannelGraph, samples: int) -> dict[str, float]:
    """Return, by group, the rows that so many samples give for each column of the consumer with the fewest."""
    found = {}
    for group in graph.groups:
        if group.product is not None:
            continue  # nothing is fitted
        sizes = [rows_and_columns(network, graph, consumer.contraction, samples) for consumer in group.consumers]
        found[group.name] = min((rows / max(columns, 1) for rows, columns, _ in sizes), default=0.0)
    return found


def sizes(graph: ChannelGraph) -> dict[str, list[int]]:
    """Return the shape of each input in the run that the costs are of."""
    return {name: list(array.shape) for name, array in graph.observation.example.feeds.items()}


def made_up_note(graph: ChannelGraph) -> str | None:
    """Return which sizes of inputs were made up; None if those of the data, or the declared ones, were taken."""
    invented = graph.observation.invented
    if not invented:
        return None
    made_up = ", ".join(
        f"{name} ({', '.join(map(str, shape))}) as ({', '.join(map(str, sizes(graph)[name]))})"
        for name, shape in invented.items()
    )
    return f"sizes that the model leaves open are made up: {made_up}; --data gives the real ones, which the multiply-accumulates hang on"
