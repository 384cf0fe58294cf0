"""What became of each group."""

from collections.abc import Mapping

from onnx_subprune.allocation.widths import GroupSensitivity
from onnx_subprune.evaluation.report.model import GroupReport
from onnx_subprune.graph.channels import ChannelGraph
from onnx_subprune.reconstruction.settings import Reconstruction


def group_reports(
    graph: ChannelGraph, done: Reconstruction, felt: Mapping[str, GroupSensitivity]
) -> tuple[GroupReport, ...]:
    """Return a report on every group of `graph`."""
    reports = []
    for group in graph.groups:
        choice = done.choices.get(group.name)
        curve = felt[group.name].output if group.name in felt else None
        reports.append(
            GroupReport(
                name=group.name,
                width=(group.width, len(choice.support) if choice else group.width),
                kept=choice.support if choice else tuple(range(group.width)),
                error=choice.error if choice else 0.0,
                conditioning=choice.conditioning if choice else None,
                curve=(curve.widths, curve.errors) if curve else None,
                consumers=tuple(done.refits[c.weight] for c in group.consumers if c.weight in done.refits),
            )
        )
    return tuple(reports)
