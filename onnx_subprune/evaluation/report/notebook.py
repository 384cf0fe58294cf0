"""A report as a notebook shows it: the tables that are printed, and a picture of each group where the extra `report` is installed."""

from html import escape

from onnx_subprune.evaluation.report.extra import missing_packages
from onnx_subprune.evaluation.report.sheet import html_of
from onnx_subprune.evaluation.report.table import report_table
from onnx_subprune.evaluation.report.values import GroupReport, Reported

BAR = "display:inline-block;height:8px;border-radius:4px"


def notebook_html(report: Reported) -> str:
    """Return tables and pictures; styles are inline, and there are no scripts."""
    return html_of((*warned(report), *report_table(report))) + _groups(report)


def warned(report: Reported) -> list[str]:
    """Return the warnings of a run as lines; the command line prints them on stderr."""
    return [f"warning: {warning}" for warning in report.warnings]


def _groups(report: Reported) -> str:
    """The groups: width before and after, and what the outputs lose by width."""
    if not report.groups:
        return ""
    rows = "".join(_row(group) for group in report.groups)
    head = "".join(f'<th style="text-align:left">{name}</th>' for name in ("group", "width", "kept", "loss by width"))
    title = "groups of channels; curves are logarithmic, the line is the width that was chosen"
    return f"<table><caption>{title}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _row(group: GroupReport) -> str:
    before, after = group.width
    bar = f'<span style="{BAR};width:{80 * after / before:.0f}px;background:#2563eb"></span>'
    cells = (
        escape(group.name),
        f"{before} → {after}" + (f", gone with {escape(group.gone)}" if group.gone else ""),
        bar,
        _drawn(group),
    )
    return "<tr>" + "".join(f'<td style="text-align:left">{cell}</td>' for cell in cells) + "</tr>"


def _drawn(group: GroupReport) -> str:
    if missing_packages():
        return ""
    from onnx_subprune.evaluation.report.plots import picture  # noqa: PLC0415 - an extra

    image = picture(group)
    return (
        ""
        if image is None
        else f'<img src="{image}" style="background:#fff" alt="loss by width of {escape(group.name)}">'
    )
