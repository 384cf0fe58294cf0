"""Terminal tables."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from rich.console import Group, RenderableType
from rich.table import Table

from onnx_subprune.allocation.widths import GroupSensitivity
from onnx_subprune.evaluation.fidelity import Fidelity
from onnx_subprune.evaluation.layers import LayerTime
from onnx_subprune.evaluation.report.model import Change, Report
from onnx_subprune.graph.channels import ChannelGraph
from onnx_subprune.graph.cost import Costs
from onnx_subprune.graph.layers import Layers, layers
from onnx_subprune.graph.network import Network

SHOWN = 6
"""Layers that the terminal shows; JSON has them all."""
SLOW = 0.2
"""By how much a latency ratio exceeds that of the multiply-accumulates where a hint is due."""


class Costed(Protocol):
    """Something with costs before and after."""

    @property
    def params(self) -> Change:
        """Parameters."""

    @property
    def macs(self) -> Change:
        """Multiply-accumulates."""

    @property
    def size(self) -> Change:
        """Bytes."""

    @property
    def latency(self) -> Change:
        """Milliseconds."""

    @property
    def latency_ratios(self) -> tuple[float, float, float]:
        """Quartiles of the ratio of latencies."""


def number(value: float) -> str:
    """Return a count with three digits and a unit prefix."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.4g}"


def _cost_row(table: Table, name: str, change: Change) -> None:
    table.add_row(name, number(change.before), number(change.after), f"{100 * change.ratio:.1f} %")


def _latency_row(table: Table, change: Change, ratios: tuple[float, float, float] | None) -> None:
    table.add_row("latency (ms)", number(change.before), number(change.after), latency_words(change, ratios))


def latency_words(change: Change, ratios: tuple[float, float, float] | None) -> str:
    """Return how much of the latency is left, with the quartiles of the ratio over rounds that ran both models back to back."""
    if ratios is None:
        return f"{100 * change.ratio:.1f} %"
    low, middle, high = ratios
    spread = f"{100 * low:.0f} to {100 * high:.0f} %"
    return f"not measurable here ({spread})" if low <= 1.0 <= high else f"{100 * middle:.1f} % ({spread})"


def report_table(report: Report) -> RenderableType:
    """Return what a run shows at its end: costs before and after, fidelity, what stayed."""
    costs = Table(title=f"{report.model['path']} pruned", title_justify="left")
    costs.add_column("cost")
    for name in ("before", "after", "kept"):
        costs.add_column(name, justify="right")
    _cost_row(costs, "parameters", report.params)
    _cost_row(costs, "multiply-accumulates", report.macs)
    _cost_row(costs, "bytes", report.size)
    if report.latency is not None:
        _latency_row(costs, report.latency, report.latency_ratios)
    parts: list[RenderableType] = [costs, *_hint(report)]
    if report.layers:
        parts.append(_layers_table(report.layers))
    if report.fidelity is not None:
        parts.append(fidelity_table(report.fidelity))
    if report.metric is not None and (report.fidelity is None or report.fidelity.accuracy is None):
        parts.append(f"metric: {report.metric.before:.6g} before, {report.metric.after:.6g} after")
    if report.pinned:
        parts.append(_pinned_table({(p.node, p.reason): p.width for p in report.pinned}))
    parts += [f"note: {note}" for note in report.notes]
    return Group(*parts)


def _layers_table(layers: Sequence[LayerTime]) -> RenderableType:
    """The layers that took most, and the rest."""
    table = Table(title="milliseconds by layer", title_justify="left")
    table.add_column("layer", overflow="fold")
    for name in ("before", "after"):
        table.add_column(name, justify="right")
    ordered = sorted(layers, key=lambda layer: -layer.before)
    rest = ordered[SHOWN:]
    if rest:
        before, after = sum(layer.before for layer in rest), sum(layer.after for layer in rest)
        ordered = [*ordered[:SHOWN], LayerTime(f"{len(rest)} others", before, after)]
    for layer in ordered:
        table.add_row(layer.name, number(layer.before), number(layer.after))
    return table


def _hint(report: Report) -> list[str]:
    """What to try if the time does not follow the multiply-accumulates, and widths were not rounded."""
    if (
        report.latency is None
        or report.settings.get("round_to") != "1"
        or report.latency.ratio < report.macs.ratio + SLOW
    ):
        return []
    if all(after % 8 == 0 for before, after in (group.width for group in report.groups) if after < before):
        return []
    return [
        "hint: onnxruntime runs layers slower whose widths are not whole blocks of channels: leave --round-to at its default, auto, or try 8 or 16"
    ]


def fidelity_table(fidelity: Fidelity) -> RenderableType:
    """Return how close the outputs are."""
    table = Table(title=f"fidelity on {fidelity.where}", title_justify="left")
    for name in ("output", "relative error", "cosine", "correlation", "agreement"):
        table.add_column(name, justify="left" if name == "output" else "right")
    for name, item in fidelity.outputs.items():
        agreement = "" if item.agreement is None else f"{100 * item.agreement:.1f} %"
        measures = (
            "" if value is None else f"{value:.4f}" for value in (item.relative_error, item.cosine, item.correlation)
        )
        table.add_row(name, *measures, agreement)
    if fidelity.accuracy is None:
        return table
    before, after = fidelity.accuracy
    return Group(table, f"accuracy with labels: {100 * before:.2f} % before, {100 * after:.2f} % after")


def _pinned_table(rows: Mapping[tuple[str, str], int]) -> RenderableType:
    table = Table(title="left as it was", title_justify="left")
    table.add_column("layer", overflow="fold")
    table.add_column("channels", justify="right")
    table.add_column("because", overflow="fold")
    for (node, reason), width in rows.items():
        table.add_row(node, str(width), reason)
    return table


def inspection_table(
    network: Network, graph: ChannelGraph, costs: Costs, rows: Mapping[str, float] = MappingProxyType({})
) -> RenderableType:
    """Return what can be pruned in a model: groups, their share of the costs, and why the rest stays.

    rows: by group, the rows (samples x positions) that the data have for each column that is fitted.
    """
    found = layers(network, graph)
    smaller = "{:.0%} of the parameters and {:.0%} of the MACs lie in layers that can get smaller".format(
        *found.smaller
    )
    params, macs = costs.params({}), costs.macs({})
    table = Table(title=f"{len(graph.groups)} channel groups", title_justify="left")
    for name in ("group", "width", "step", "made by", "read by", "params", "MACs"):
        table.add_column(name, justify="left" if name in ("group", "made by", "read by") else "right", overflow="fold")
    if rows:
        table.add_column("rows a column", justify="right")
    for group in graph.groups:
        share = group_share(costs, group.name)
        table.add_row(
            group.name,
            str(group.width),
            str(group.step),
            _names(group.producers),
            _names(group.readers),
            f"{100 * share[0]:.1f} %",
            f"{100 * share[1]:.1f} %",
            *([number(rows[group.name]) if group.name in rows else ""] if rows else []),
        )
    parts: list[RenderableType] = [
        smaller.replace("%", " %"),
        f"{number(params)} parameters, {number(macs)} multiply-accumulates a sample",
        table,
    ]
    if graph.pinned:
        parts.append(_pinned_table({(p.node, p.reason): p.width for p in graph.pinned}))
    if found.staying:
        parts.append(_staying_table(found))
    return Group(*parts)


def _staying_table(found: Layers) -> RenderableType:
    table = Table(title="layers with weights that stay", title_justify="left")
    for name in ("layer", "operator", "params", "MACs", "because"):
        table.add_column(name, justify="right" if name in ("params", "MACs") else "left", overflow="fold")
    for item in found.staying:
        shares = item.params / max(found.params, 1), item.macs / max(found.macs, 1e-12)
        table.add_row(item.node, item.op, *(f"{100 * share:.1f} %" for share in shares), item.reason)
    return table


def group_share(costs: Costs, name: str) -> tuple[float, float]:
    """Return the shares of parameters and multiply-accumulates that the channels of a group take part in."""
    return tuple(-cost.change(cost.full, name, 0) / max(cost({}), 1e-12) for cost in (costs.params, costs.macs))  # type: ignore[return-value]  # two costs, two shares


def _names(names: tuple[str, ...] | list[str]) -> str:
    return f"{names[0]} +{len(names) - 1}" if len(names) > 1 else "".join(names)


def sensitivity_table(found: Sequence[GroupSensitivity]) -> RenderableType:
    """Return the divergence of the output at each width of each group."""
    table = Table(title="divergence of the output, one group narrowed alone", title_justify="left")
    table.add_column("group", overflow="fold")
    table.add_column("width: divergence", overflow="fold")
    for item in found:
        pairs = zip(item.output.widths, item.output.errors, strict=True)
        table.add_row(item.name, "  ".join(f"{width}: {error:.2g}" for width, error in pairs))
    return table


def comparison_table(found: Costed) -> RenderableType:
    """Return the costs of both models."""
    table = Table(title="original and pruned", title_justify="left")
    table.add_column("cost")
    for name in ("original", "pruned", "kept"):
        table.add_column(name, justify="right")
    _cost_row(table, "parameters", found.params)
    _cost_row(table, "multiply-accumulates", found.macs)
    _cost_row(table, "bytes", found.size)
    _latency_row(table, found.latency, found.latency_ratios)
    return table
