"""`inspect` as plain values."""

from onnx_subprune.evaluation.report.table import group_share
from onnx_subprune.graph.channels import ChannelGraph
from onnx_subprune.graph.cost import Costs


def inspection_dict(graph: ChannelGraph, costs: Costs) -> dict[str, object]:
    """Return groups with widths, producers, consumers and shares of the costs, and what is pinned."""
    groups = []
    for group in graph.groups:
        params, macs = group_share(costs, group.name)
        groups.append(
            {
                "name": group.name,
                "width": group.width,
                "step": group.step,
                "producers": list(group.producers),
                "consumers": [consumer.node for consumer in group.consumers],
                "params": params,
                "macs": macs,
            }
        )
    pinned = [
        {"node": p.node, "tensor": p.axis.tensor, "axis": p.axis.index, "width": p.width, "reason": p.reason}
        for p in graph.pinned
    ]
    return {"params": costs.params({}), "macs": costs.macs({}), "groups": groups, "pinned": pinned}
