"""Branches that have no channels: what lies in them is neither chosen nor refitted, and no other group is chosen for its sake."""

from collections.abc import Collection
from dataclasses import replace

from onnx_subprune.graph.channels import ChannelGraph
from onnx_subprune.graph.contractions.ends import with_biases
from onnx_subprune.graph.tracing.branches import blocks
from onnx_subprune.reconstruction.task import Task
from onnx_subprune.selection import Choice


def without_branches(task: Task) -> Task:
    """Return the task with the nodes named that nobody reads at its widths.

    Groups that only these read keep all channels, as they go anyway; what else makes such channels, of which nobody reads any, keeps the first ones.
    """
    empty = {name for name, width in task.widths.items() if width == 0}
    found = [block for name, block in blocks(task.network, task.graph).items() if name in empty] if empty else []
    if not found:
        return task
    labels = task.network.labels
    ends = {labels[place] for block in found for end in block.ends for place in end.places}
    gone = frozenset(labels[place] for block in found for place in block.unread) - ends
    unread = {group.name: group for group in task.graph.groups if gone.issuperset(group.readers)}
    left = {
        name: Choice(tuple(range(task.widths[name])), 0.0)
        for name, group in unread.items()
        if name in task.widths and group.product is None and not gone.issuperset(group.producers)
    }
    widths = {name: width for name, width in task.widths.items() if name in left or name not in unread}
    graph = with_biases(read_in(task.graph, gone), ends)
    return replace(task, graph=graph, widths=widths, gone=gone, choices={**task.choices, **left})


def read_in(graph: ChannelGraph, gone: Collection[str]) -> ChannelGraph:
    """Return the graph whose groups are read by no node of `gone`, where others read them as well."""
    groups = []
    for group in graph.groups:
        left = tuple(consumer for consumer in group.consumers if consumer.node not in gone)
        groups.append(replace(group, consumers=left) if left else group)
    return replace(graph, groups=tuple(groups))
