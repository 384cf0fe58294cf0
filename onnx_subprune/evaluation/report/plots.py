"""Small pictures for HTML reports, as data URIs of SVG: they need no file, no network and no script.

Imports matplotlib, which the extra `report` brings; import this module only after `report.extra.need_extra`.
"""

import base64
import io
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onnx_subprune.evaluation.report.values import GroupReport

INK, ACCENT, FAINT = "#334155", "#2563eb", "#cbd5e1"


def sparkline(widths: Sequence[int], errors: Sequence[float], full: int, chosen: int) -> str:
    """Return a curve of the errors over the widths, logarithmic, with a line at the width that was chosen."""
    figure = Figure(figsize=(1.9, 0.45), layout="constrained")
    axes = figure.add_subplot()
    _curve(axes, widths, errors)
    axes.axvline(chosen, color=ACCENT, linewidth=1.0)
    axes.set_xlim(0, full)
    axes.set_xticks([])
    axes.set_yticks([])
    return _uri(figure)


def picture(group: GroupReport) -> str | None:
    """Return what the outputs lose when a group alone gets narrower; None where that was not measured."""
    if group.curve is None:
        return None
    return sparkline(group.curve[0], group.curve[1], group.width[0], group.width[1])


def curve(widths: Sequence[int], errors: Sequence[float], full: int, limits: tuple[float, float]) -> str:
    """Return a curve of the errors over the widths with axes; `limits` are the least and the largest error of all curves."""
    figure = Figure(figsize=(2.9, 1.7), layout="constrained")
    axes = figure.add_subplot()
    _curve(axes, widths, errors)
    axes.set_xlim(0, full)
    axes.set_ylim(limits[0] / 2, limits[1] * 2)
    axes.set_xlabel("width", color=INK)
    axes.grid(color=FAINT, linewidth=0.4)
    return _uri(figure)


def _curve(axes: Axes, widths: Sequence[int], errors: Sequence[float]) -> None:
    floor = max(*errors, 1e-12) * 1e-6
    axes.plot(widths, [max(error, floor) for error in errors], color=INK, linewidth=1.1, marker="o", markersize=2.2)
    axes.set_yscale("log")
    axes.minorticks_off()
    axes.tick_params(length=2, width=0.5, color=FAINT, labelcolor=INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)


def _uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    # Text stays text, and equal curves give equal bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "onnx_subprune", "font.size": 7.0}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
