"""What a pruned model says of itself in its metadata, where viewers such as Netron show it."""

from collections.abc import Mapping, Sequence
from typing import Any

from onnx import ModelProto

from onnx_subprune._version import __version__
from onnx_subprune.evaluation.report.values import GroupReport
from onnx_subprune.graph.channels import ChannelGraph

PREFIX = "onnx_subprune."
NODES_SINCE = 10
"""Version of the format from which on nodes may have metadata."""


def stamped(model: ModelProto, graph: ChannelGraph, groups: Sequence[GroupReport]) -> None:
    """Write version and widths into a model that was made here: of the whole, and at each layer that makes channels of a group that got narrower.

    graph: that of the original, whose nodes keep their names.
    """
    narrower = {group.name: group.width for group in groups if group.width[1] < group.width[0]}
    if not narrower:
        return
    widths = ", ".join(f"{name}: {before} to {after}" for name, (before, after) in narrower.items())
    _put(model.metadata_props, {"version": __version__, "widths": widths})
    if model.ir_version < NODES_SINCE:
        return
    said = {
        node: {"group": group.name, "width": "{} to {}".format(*narrower[group.name])}
        for group in graph.groups
        if group.name in narrower
        for node in group.producers
    }
    for node in model.graph.node:
        if node.name in said:
            _put(node.metadata_props, said[node.name])


def _put(props: Any, values: Mapping[str, str]) -> None:
    """Add entries to metadata; those of an earlier pruning are replaced."""
    known = {entry.key: entry for entry in props}
    for name, value in values.items():
        if (entry := known.get(PREFIX + name)) is None:
            entry = props.add(key=PREFIX + name)
        entry.value = value
