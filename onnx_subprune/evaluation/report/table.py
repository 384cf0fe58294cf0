"""Results as tables: what a command prints, `print(result.report)` shows, and a notebook displays."""

from collections.abc import Mapping, Sequence
from shlex import quote
from types import MappingProxyType

from onnx_subprune.allocation.widths import GroupSensitivity
from onnx_subprune.evaluation.layers import LayerTime
from onnx_subprune.evaluation.measures import Fidelity
from onnx_subprune.evaluation.report.finetuning import finetuning_lines
from onnx_subprune.evaluation.report.removed import removable
from onnx_subprune.evaluation.report.sheet import Column, Part, Sheet
from onnx_subprune.evaluation.report.values import Change, Costed, Reported, latency_name, latency_words
from onnx_subprune.graph.attention import attention_lines
from onnx_subprune.graph.channels import ChannelGraph
from onnx_subprune.graph.costs.costs import Costs
from onnx_subprune.graph.costs.layers import Layers, layers
from onnx_subprune.graph.network import Network

SHOWN = 6
"""Layers that the terminal shows; JSON has them all."""
SLOW = 0.2
"""By how much a latency ratio exceeds that of the multiply-accumulates where a hint is due."""


def number(value: float) -> str:
    """Return a count with three digits and a unit prefix."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.4g}"


def _costs(title: str, names: tuple[str, str], found: Reported | Costed) -> Sheet:
    """Costs before and after."""
    changes = {"parameters": found.params, "multiply-accumulates": found.macs, "bytes": found.size}
    rows = [
        (name, number(change.before), number(change.after), f"{100 * change.ratio:.1f} %")
        for name, change in changes.items()
    ]
    if (latency := found.latency) is not None:
        words = latency_words(latency, found.latency_ratios)
        rows.append((latency_name(found.latency_batch), number(latency.before), number(latency.after), words))
    if (single := found.latency_single) is not None:
        words = latency_words(Change(single.before, single.after), single.ratios)
        rows.append((latency_name(1), number(single.before), number(single.after), words))
    return Sheet(title, (Column("cost"), *(Column(name, "number") for name in (*names, "kept"))), tuple(rows))


def report_table(report: Reported) -> tuple[Part, ...]:
    """Return what a run shows at its end: costs before and after, fidelity, what stayed."""
    parts: list[Part] = [_costs(f"{report.model['path']} pruned", ("before", "after"), report), *_hint(report)]
    if report.layers:
        parts.append(layers_table(report.layers))
    parts += () if report.fidelity is None else fidelity_table(report.fidelity)
    parts += finetuning_lines(report.finetuning)
    if report.metric is not None and (report.fidelity is None or report.fidelity.accuracy is None):
        parts.append(f"metric: {report.metric.before:.6g} before, {report.metric.after:.6g} after")
    if report.pinned:
        parts.append(_pinned_table({(p.node, p.reason): p.width for p in report.pinned}))
    parts += [f"note: {note}" for note in report.notes]
    return tuple(parts)


def layers_table(layers: Sequence[LayerTime]) -> Sheet:
    """The layers that took most, and the rest."""
    ordered = sorted(layers, key=lambda layer: -layer.before)
    rest = ordered[SHOWN:]
    if rest:
        before, after = sum(layer.before for layer in rest), sum(layer.after for layer in rest)
        ordered = [*ordered[:SHOWN], LayerTime(f"{len(rest)} others", before, after)]
    rows = tuple((layer.name, number(layer.before), number(layer.after)) for layer in ordered)
    return Sheet(
        "milliseconds by layer", (Column("layer"), Column("before", "number"), Column("after", "number")), rows
    )


def _hint(report: Reported) -> list[str]:
    """What to try if the time does not follow the multiply-accumulates, and widths were not rounded."""
    if (
        report.latency is None
        or report.settings.get("round_to") != "1"
        or report.latency.ratio < report.macs.ratio + SLOW
        or all(after % 8 == 0 for before, after in (group.width for group in report.groups) if after < before)
        or any("in smaller blocks than" in note for note in report.notes)  # blocks were tried
    ):
        return []
    return [
        "hint: onnxruntime runs layers slower whose widths are not whole blocks of channels: leave --round-to at its default, auto, or try 8 or 16"
    ]


def fidelity_table(fidelity: Fidelity) -> tuple[Part, ...]:
    """Return how close the outputs are."""
    heads = ("relative error", "cosine", "correlation", "agreement")
    rows = []
    for name, item in fidelity.outputs.items():
        measures = ("" if value is None else f"{value:.4f}" for value in (item.cosine, item.correlation))
        rows.append((name, item.error_words, *measures, item.agreement_words))
    columns = (Column("output"), *(Column(head, "number") for head in heads))
    table = Sheet(f"fidelity on {fidelity.where}", columns, tuple(rows))
    if fidelity.accuracy is None:
        return (table,)
    before, after = fidelity.accuracy
    return table, f"accuracy with labels: {100 * before:.2f} % before, {100 * after:.2f} % after"


def _pinned_table(rows: Mapping[tuple[str, str], int]) -> Sheet:
    columns = (Column("layer"), Column("channels", "number"), Column("because", "text"))
    return Sheet("left as it was", columns, tuple((node, str(width), reason) for (node, reason), width in rows.items()))


def inspection_table(
    network: Network, graph: ChannelGraph, costs: Costs, rows: Mapping[str, float] = MappingProxyType({})
) -> tuple[Part, ...]:
    """Return what can be pruned in a model: the verdict, groups by their share of the costs, the largest first, and why the rest stays.

    rows: by group, the rows (samples x positions) that the data have for each column that is fitted.
    """
    found = layers(network, graph)
    params, macs = costs.params({}), costs.macs({})
    parts: list[Part] = [
        verdict(graph, found),
        f"{number(params)} parameters, {number(macs)} multiply-accumulates a sample",
        *attention_lines(network, graph),
        *removable(network, graph),
    ]
    if graph.groups:
        parts.append(_groups_table(graph, costs, rows))
    if graph.pinned:
        parts.append(_pinned_table({(p.node, p.reason): p.width for p in graph.pinned}))
    if found.staying:
        parts.append(_staying_table(found))
    return tuple(parts)


def verdict(graph: ChannelGraph, found: Layers) -> str:
    """Return in a sentence how much of a model can be pruned."""
    if not graph.groups:
        return "Nothing can be pruned here: no channels are free to go, for the reasons below."
    params, macs = (f"{100 * share:.0f} %" for share in found.smaller)
    count = f"{len(graph.groups)} group{'s' if len(graph.groups) > 1 else ''} of channels"
    return f"{params} of the parameters and {macs} of the MACs lie in layers that can get smaller, in {count}."


def _groups_table(graph: ChannelGraph, costs: Costs, rows: Mapping[str, float]) -> Sheet:
    shares = {group.name: group_share(costs, group.name) for group in graph.groups}
    columns = [Column("group"), Column("width", "number"), Column("MACs", "number"), Column("params", "number")]
    columns += [Column("rows a column", "number")] if rows else []
    columns += [Column("read by", spare=True), Column("made by", spare=True), Column("step", "number", spare=True)]
    lines: list[tuple[str, ...]] = []
    for group in sorted(graph.groups, key=lambda group: shares[group.name][::-1], reverse=True):
        params, macs = (f"{100 * share:.1f} %" for share in shares[group.name])
        fitted = [number(rows[group.name]) if group.name in rows else ""] if rows else []
        ends = (_names(group.readers), _names(group.producers), str(group.step))
        lines.append((group.name, str(group.width), macs, params, *fitted, *ends))
    return Sheet("groups of channels, with their share of the costs, the largest first", tuple(columns), tuple(lines))


def _staying_table(found: Layers) -> Sheet:
    columns = (
        Column("layer"),
        Column("operator", spare=True),
        Column("MACs", "number"),
        Column("params", "number"),
        Column("because", "text"),
    )
    rows = []
    for item in sorted(found.staying, key=lambda item: (-item.macs, -item.params)):
        shares = item.macs / max(found.macs, 1e-12), item.params / max(found.params, 1)
        rows.append((item.node, item.op, *(f"{100 * share:.1f} %" for share in shares), item.reason or ""))
    return Sheet("layers with weights that stay", columns, tuple(rows))


def group_share(costs: Costs, name: str) -> tuple[float, float]:
    """Return the shares of parameters and multiply-accumulates that the channels of a group take part in."""
    return tuple(-cost.change(cost.full, name, 0) / max(cost({}), 1e-12) for cost in (costs.params, costs.macs))  # type: ignore[return-value]  # two costs, two shares


def _names(names: tuple[str, ...] | list[str]) -> str:
    return f"{names[0]} +{len(names) - 1}" if len(names) > 1 else "".join(names)


def sensitivity_table(found: Sequence[GroupSensitivity]) -> tuple[Part, ...]:
    """Return the divergence of the output at each width of each group, the most sensitive first, and what to exclude."""
    ordered = sorted(found, key=lambda item: -half_error(item))
    rows = []
    for item in ordered:
        pairs = zip(item.output.widths, item.output.errors, strict=True)
        rows.append(
            (item.name, f"{half_error(item):.2g}", "  ".join(f"{width}: {error:.2g}" for width, error in pairs))
        )
    columns = (Column("group"), Column("at half", "number"), Column("width: divergence", "text"))
    table = Sheet("divergence of the output, one group narrowed alone, the most sensitive first", columns, tuple(rows))
    return table, *_excludes(ordered)


def half_error(item: GroupSensitivity) -> float:
    """Return the divergence at the measured width that is closest to half of the largest."""
    pairs = dict(zip(item.output.widths, item.output.errors, strict=True))
    return pairs[min(pairs, key=lambda width: (abs(width - max(pairs) / 2), width))]


def _excludes(ordered: Sequence[GroupSensitivity]) -> list[str]:
    """What to paste behind `prune` to leave the most sensitive quarter alone."""
    most = [item for item in ordered[: max(1, len(ordered) // 4)] if half_error(item) > 0.0]
    if len(ordered) < 2 or not most:
        return []
    return [f"to leave the most sensitive alone: {' '.join(f'--exclude {quote(literal(item.name))}' for item in most)}"]


def literal(name: str) -> str:
    """Return the pattern that matches this name alone."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def comparison_table(found: Costed) -> Sheet:
    """Return the costs of both models."""
    return _costs("original and pruned", ("original", "pruned"), found)
