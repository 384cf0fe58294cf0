"""A run, or the sensitivities of a model, as one self-contained HTML page: inline styles and pictures, no script, no network.

Imports jinja2 and, through `plots`, matplotlib, which the extra `report` brings; import this module only after
`report.extra.need_extra`.
"""

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from onnx_subprune._version import __version__
from onnx_subprune.allocation.widths import GroupSensitivity
from onnx_subprune.evaluation.report.finetuning import finetuning_words
from onnx_subprune.evaluation.report.map import Block
from onnx_subprune.evaluation.report.plots import curve, picture
from onnx_subprune.evaluation.report.sheet import Part
from onnx_subprune.evaluation.report.summary import summary
from onnx_subprune.evaluation.report.table import number
from onnx_subprune.evaluation.report.values import Change, Reported, latency_name, latency_words


def report_html(report: Reported) -> str:
    """Return a pruning run as a page."""
    changes = {"parameters": report.params, "multiply-accumulates": report.macs, "bytes": report.size}
    costs = {name: (change, change.ratio) for name, change in changes.items()}
    if (latency := report.latency) is not None:  # of which the median of the ratios counts, as everywhere
        left = latency.ratio if report.latency_ratios is None else report.latency_ratios[1]
        costs[latency_name(report.latency_batch)] = latency, left
    if (single := report.latency_single) is not None:
        costs[latency_name(1)] = Change(single.before, single.after), single.ratio
    consumers = dict.fromkeys(item for group in report.groups for item in group.consumers)
    pinned = {(p.node, p.reason): p.width for p in report.pinned}
    return _page(
        "report.html.jinja",
        report=report,
        summary=summary(report),
        finetuning=None if report.finetuning is None else finetuning_words(report.finetuning),
        costs=costs,
        latency=None if report.latency is None else latency_words(report.latency, report.latency_ratios),
        groups=[(group, picture(group)) for group in report.groups],
        consumers=list(consumers),
        pinned=[(node, reason, width) for (node, reason), width in pinned.items()],
    )


def parts_html(title: str, parts: Sequence[Part], *, drawn: Sequence[Block] = (), warnings: Sequence[str] = ()) -> str:
    """Return tables and sentences as a page, warnings before them, and behind the first sentence the map of a network, if there is one."""
    return _page("parts.html.jinja", title=title, parts=parts, blocks=drawn, warnings=warnings)


def sensitivity_html(found: Sequence[GroupSensitivity], model: str) -> str:
    """Return the sensitivity of every group of `model`, a name, as a page; the steepest first."""
    errors = [error for item in found for error in item.output.errors if error > 0.0]
    limits = (min(errors), max(errors)) if errors else (1e-6, 1.0)
    limits = (max(limits[0], limits[1] * 1e-6), limits[1])
    curves = [
        (item, curve(item.output.widths, item.output.errors, max(item.output.widths), limits))
        for item in sorted(found, key=lambda item: -max(item.output.errors))
    ]
    return _page("sensitivity.html.jinja", curves=curves, model=model)


def _page(template: str, **values: object) -> str:
    environment = Environment(
        loader=PackageLoader("onnx_subprune.evaluation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["error"] = lambda value: f"{max(value, 0.0):.4f}"  # rounding goes below zero
    return environment.get_template(template).render(version=__version__, **values)
