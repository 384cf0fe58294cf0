"""Draw the pictures of the documentation: `python tools/pictures.py` writes docs/pictures/*.svg."""

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from onnx_subprune import Resources, sensitivity
from onnx_subprune.selection import Problem, Random, WeightNorm, selectors

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
INK, ACCENT, PALE = "#334155", "#2563eb", "#dbeafe"


def coordinates() -> Figure:
    """Draw a residual block, and which channels are the same."""
    figure = Figure(figsize=(7.2, 2.3), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlim(0, 12)
    axes.set_ylim(0, 3.2)
    axes.axis("off")
    boxes = {
        "Conv a": (0.2, 1.9),
        "Conv b": (3.0, 2.4),
        "Relu": (5.0, 2.4),
        "Conv c": (7.0, 2.4),
        "Add": (9.1, 1.9),
        "Conv d": (10.9, 1.9),
    }
    for name, (x, y) in boxes.items():
        shared = name in ("Conv a", "Conv c", "Add", "Conv d")
        axes.text(
            x, y, name, ha="left", va="center", color=INK, fontsize=10,
            bbox={"boxstyle": "round,pad=0.35", "facecolor": PALE if shared else "white", "edgecolor": ACCENT if shared else INK},
        )  # fmt: skip
    arrows = (
        ((1.25, 2.0), (2.9, 2.4)),
        ((4.0, 2.4), (4.9, 2.4)),
        ((5.8, 2.4), (6.9, 2.4)),
        ((8.0, 2.4), (9.0, 2.0)),
        ((1.25, 1.8), (9.0, 1.8)),
        ((9.8, 1.9), (10.8, 1.9)),
    )
    for start, end in arrows:
        axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": INK})
    axes.text(
        0.2,
        0.75,
        "blue: one group. What Conv a and Conv c put out, and Conv b and Conv d read, are the same channels.",
        color=ACCENT,
        fontsize=9,
    )
    axes.text(0.2, 0.25, "Conv b to Conv c: a group of its own, inside the branch.", color=INK, fontsize=9)
    return figure


def selection() -> Figure:
    """Draw the error of each selector over the channels kept, on one layer of correlated channels."""
    rng = np.random.default_rng(0)
    channels, rows = 64, 4000
    x = rng.standard_normal((rows, 20)) @ rng.standard_normal((20, channels)) + 0.4 * rng.standard_normal(
        (rows, channels)
    )
    weights = rng.standard_normal((channels, 10)) * rng.gamma(1.0, 1.0, channels)[:, None]
    gram, cross = x.T @ x, x.T @ x @ weights
    energy = float(np.sum((x @ weights) ** 2))
    problem = Problem(gram=gram, cross=cross, energy=energy, columns=np.arange(channels)[:, None], prior=weights)
    shown = {
        "refined": selectors(0)["refined"],
        "forward": selectors(0)["forward"],
        "norm of the weights": WeightNorm(),
        "random": Random(0),
    }
    figure = Figure(figsize=(6.0, 3.2), layout="constrained")
    axes = figure.add_subplot()
    sizes = list(range(4, channels + 1, 4))
    for name, selector in shown.items():
        path = selector.path([problem], sizes, np.zeros(channels, np.int64))  # type: ignore[union-attr]
        axes.plot(sizes, [problem.error(choice.support) for choice in path], marker="o", markersize=3, label=name)
    axes.set_xlabel("channels kept, of 64")
    axes.set_ylabel("relative squared error")
    axes.legend(frameon=False)
    return _plain(figure)


def curves() -> Figure:
    """Draw what the output of LeNet loses when one group alone gets narrower."""
    data = np.load(ROOT / "models" / "fashion_calibration.npz")["input"][:128]
    found = sensitivity(ROOT / "models" / "lenet_fashion.onnx", data, resources=Resources(threads=1))
    figure = Figure(figsize=(6.0, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for item in found:
        full = max(item.output.widths)
        axes.plot(
            [width / full for width in item.output.widths],
            item.output.errors,
            marker="o",
            markersize=3,
            label=item.name,
        )
    axes.set_yscale("log")
    axes.set_xlabel("share of the channels kept")
    axes.set_ylabel("divergence of the output")
    axes.legend(frameon=False)
    return _plain(figure)


METHODS = {
    "default options (widths in blocks)": ("onnx-subprune", ACCENT, "o-"),
    "forward, asymmetric, paper's refit": ("the paper's selection and refit, any widths", "#0d9488", "s--"),
    "wanda, no refit": ("Wanda, sliced", "#94a3b8", "^--"),
    "weight-norm, no refit": ("norm of the weights, sliced", "#cbd5e1", "v--"),
    "onnxsim, L2 norm": ("onnxsim, norm of the weights", "#d97706", "D--"),
    "onnxsim, wanda": ("onnxsim, Wanda", "#b45309", "x--"),
}
"""Rows of the comparison: what they are called here, and how they are drawn."""


def compared() -> Figure:
    """Draw accuracy against time, from what `compare_methods.py --latency --json docs/pictures/compared.json` measured."""
    (found,) = json.loads((PICTURES / "compared.json").read_text())["models"].values()
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(found["unpruned"], color=INK, linewidth=0.8, linestyle=":")
    axes.text(0.99, 0.93, "the original", color=INK, fontsize=8, va="top", ha="right", transform=axes.transAxes)
    for name, (title, colour, style) in METHODS.items():
        cells = [cell for cell in found["rows"].get(name, {}).values() if cell.get("latency") is not None]
        if cells:
            points = sorted((cell["latency"], cell["accuracy"]) for cell in cells)
            axes.plot(*zip(*points, strict=True), style, color=colour, markersize=4, linewidth=1.4, label=title)
    axes.set_xlabel("time on one thread of onnxruntime, of the original")
    axes.set_ylabel("accuracy, %")
    axes.legend(frameon=False, fontsize=8)
    return _plain(figure)


def _plain(figure: Figure) -> Figure:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#cbd5e1", linewidth=0.4)
    return figure


def main() -> None:
    """Draw all."""
    PICTURES.mkdir(exist_ok=True)
    for made in (coordinates, selection, curves, compared):
        with mpl.rc_context({"svg.hashsalt": "onnx_subprune"}):
            made().savefig(PICTURES / f"{made.__name__}.svg", facecolor="white", metadata={"Date": None})


if __name__ == "__main__":
    main()
