"""Draw the pictures of the documentation: `python tools/pictures.py` writes docs/pictures/*.svg."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

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
    sizes = list(range(4, channels + 1, 4))
    errors: dict[str, list[float]] = {}
    for name, selector in shown.items():
        path = selector.path([problem], sizes, np.zeros(channels, np.int64))  # type: ignore[union-attr]
        errors[name] = [problem.error(choice.support) for choice in path]
    return _lost(sizes, errors)


def _lost(sizes: Sequence[int], errors: Mapping[str, Sequence[float]]) -> Figure:
    """Curves of the errors over the channels kept."""
    figure = Figure(figsize=(6.0, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for name, values in errors.items():
        axes.plot(sizes, values, marker="o", markersize=3, label=name)
    axes.set_xlabel("channels kept, of 64")
    axes.set_ylabel("relative squared error")
    axes.legend(frameon=False)
    return _plain(figure)


def moments() -> Figure:
    """Draw how samples become a Gram and cross moments, whose sizes do not depend on how many there are."""
    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    axes = _canvas(figure, 12, 4.4)
    for number in range(3):
        y = 2.9 - 1.25 * number
        _box(axes, (0.3, y), (1.6, 1.0), f"X, chunk {number + 1}")
        _box(axes, (2.1, y), (0.9, 1.0), "Y", pale=False)
        axes.annotate("", (5.2, 2.2), (3.1, y + 0.5), arrowprops={"arrowstyle": "->", "color": INK})
    axes.text(4.3, 3.55, "sums over rows", color=INK, fontsize=9)
    _box(axes, (5.4, 1.4), (1.6, 1.6), "G = X'X")
    _box(axes, (7.2, 1.4), (0.9, 1.6), "C = X'Y", pale=False)
    axes.annotate("", (9.2, 2.2), (8.2, 2.2), arrowprops={"arrowstyle": "->", "color": INK})
    axes.text(9.35, 2.45, "which channels", color=ACCENT, fontsize=9)
    axes.text(9.35, 1.85, "which weights", color=ACCENT, fontsize=9)
    axes.text(5.4, 0.75, "channels x channels, channels x outputs:", color=INK, fontsize=9)
    axes.text(5.4, 0.3, "however many rows there are", color=INK, fontsize=9)
    return figure


def refit() -> Figure:
    """Draw what a layer of correlated channels loses, with its weights sliced and with them refitted, on rows that nothing was fitted to."""
    rng = np.random.default_rng(0)
    channels, rows = 64, 4000
    mixing = rng.standard_normal((20, channels))
    x, new = (rng.standard_normal((rows, 20)) @ mixing + 0.4 * rng.standard_normal((rows, channels)) for _ in range(2))
    weights = rng.standard_normal((channels, 10)) * rng.gamma(1.0, 1.0, channels)[:, None]
    gram, cross, target = x.T @ x, x.T @ x @ weights, new @ weights
    problem = Problem(
        gram=gram,
        cross=cross,
        energy=float(np.sum((x @ weights) ** 2)),
        columns=np.arange(channels)[:, None],
        prior=weights,
    )
    sizes = list(range(4, channels + 1, 4))
    path = selectors(0)["refined"].path([problem], sizes, np.zeros(channels, np.int64))  # type: ignore[union-attr]
    errors: dict[str, list[float]] = {"sliced: the old weights": [], "refitted: least squares": []}
    for choice in path:
        kept = np.asarray(choice.support)
        fitted = np.linalg.solve(gram[np.ix_(kept, kept)], cross[kept])
        for name, used in zip(errors, (weights[kept], fitted), strict=True):
            errors[name].append(float(np.sum((new[:, kept] @ used - target) ** 2) / np.sum(target**2)))
    return _lost(sizes, errors)


def attention() -> Figure:
    """Draw two heads: what Q and K sum over goes in both, what V makes goes with the rows of the output projection."""
    figure = Figure(figsize=(7.2, 2.9), layout="constrained")
    axes = _canvas(figure, 12, 4.8)
    gone = {"Q": ((2, 5), (1, 3)), "K": ((2, 5), (1, 3)), "V": ((0, 3), (4, 5)), "output": ((0, 3), (4, 5))}
    for row, (name, heads) in enumerate(gone.items()):
        y = 3.75 - 0.95 * row
        axes.text(
            0.2,
            y + 0.25,
            {"output": "rows of the\noutput projection"}.get(name, name),
            color=INK,
            fontsize=9,
            va="center",
        )
        for head, places in enumerate(heads):
            for place in range(6):
                x = 2.7 + 2.9 * head + 0.44 * place
                _box(axes, (x, y), (0.38, 0.5), "", pale=place not in places, line=INK if place in places else ACCENT)
    axes.text(2.7, 4.45, "head 1", color=INK, fontsize=9)
    axes.text(5.6, 4.45, "head 2", color=INK, fontsize=9)
    axes.text(8.6, 3.55, "the same numbers of Q and K,", color=ACCENT, fontsize=9)
    axes.text(8.6, 3.15, "equally many in each head", color=ACCENT, fontsize=9)
    axes.text(8.6, 1.55, "the same of V and of what", color=ACCENT, fontsize=9)
    axes.text(8.6, 1.15, "reads it", color=ACCENT, fontsize=9)
    axes.text(2.7, 0.3, "blue stays, white goes", color=INK, fontsize=9)
    return figure


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


def _canvas(figure: Figure, width: float, height: float) -> Axes:
    axes = figure.add_subplot()
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.axis("off")
    return axes


def _box(
    axes: Axes,
    place: tuple[float, float],
    size: tuple[float, float],
    text: str,
    *,
    pale: bool = True,
    line: str = ACCENT,
) -> None:
    axes.add_patch(Rectangle(place, *size, facecolor=PALE if pale else "white", edgecolor=line, linewidth=0.8))
    axes.text(place[0] + size[0] / 2, place[1] + size[1] / 2, text, color=INK, fontsize=9, ha="center", va="center")


def _plain(figure: Figure) -> Figure:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#cbd5e1", linewidth=0.4)
    return figure


def main() -> None:
    """Draw all."""
    PICTURES.mkdir(exist_ok=True)
    for made in (coordinates, moments, selection, refit, curves, attention, compared):
        with mpl.rc_context({"svg.hashsalt": "onnx_subprune"}):
            made().savefig(PICTURES / f"{made.__name__}.svg", facecolor="white", metadata={"Date": None})


if __name__ == "__main__":
    main()
