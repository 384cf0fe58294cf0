"""Tables and the plot of `benchmark.py`."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from rich.table import Table

Row = dict[str, object]

SHARED = (3, 16)
"""Depth and width of the network that the cases of growing depth and those of growing width share."""
GROWTH = 256
"""Samples of the cases of growing depth and width."""


def table(rows: Sequence[Row]) -> Table:
    heads = ("samples", "peak_mb", "forward", "passes", "floor", "over_floor")
    stages = ("trace", "calibrate", "select", "refit", "verify", "total")
    made = Table("network", *heads, *(f"{stage} s" for stage in stages), title="half of every group")
    for row in rows:
        seconds = row["seconds"]
        assert isinstance(seconds, dict)
        made.add_row(str(row["network"]), *(str(row[k]) for k in heads), *(f"{seconds[s]:.2f}" for s in stages))
    return made


def growth(rows: Sequence[Row]) -> Table:
    """By depth and by width, at the most common number of samples: what grows with the network."""
    made = Table("network", "parameters", "samples", "total s", "forward s", "passes", "peak MB", title="growth")
    for row in grown(rows, "depth") + grown(rows, "width"):
        seconds = row["seconds"]
        assert isinstance(seconds, dict)
        keys = ("network", "parameters", "samples", "total", "forward", "passes", "peak_mb")
        made.add_row(*(str({**row, "total": seconds["total"]}[key]) for key in keys))
    return made


def grown(rows: Sequence[Row], axis: str) -> list[Row]:
    """The rows with 256 samples along an axis, "depth" or "width", through the network that both axes share."""
    fixed = {"depth": f"width {SHARED[1]}", "width": f"depth {SHARED[0]}"}[axis]
    mine = [row for row in rows if row["samples"] == GROWTH and fixed in str(row["network"]).split(", ")]
    return sorted(mine, key=lambda row: place(row, axis))


def place(row: Row, axis: str) -> int:
    """Depth or width of a row's network, from its name."""
    return next(int(part.split()[1]) for part in str(row["network"]).split(", ") if part.startswith(axis))


def plot(rows: Sequence[Row], path: Path) -> None:
    figure = Figure(figsize=(15, 8))
    panels = figure.subplots(2, 3)
    for line, (key, label) in enumerate((("passes", "forward passes"), ("peak_mb", "peak memory, MB"))):
        samples, *others = panels[line]
        for name in dict.fromkeys(str(row["network"]) for row in rows):
            mine = [row for row in rows if row["network"] == name]
            samples.plot([row["samples"] for row in mine], [row[key] for row in mine], "o-", label=name)
        samples.set(xscale="log", xlabel="calibration samples", ylabel=label, ylim=(0, None))
        for axes, axis in zip(others, ("depth", "width"), strict=True):
            mine = grown(rows, axis)
            axes.plot([place(row, axis) for row in mine], [row[key] for row in mine], "o-")
            axes.set(xlabel=f"{axis}, {GROWTH} samples", ylim=(0, None))
    panels[1][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


RACES = {
    f"{threads} thread{'s' * (threads > 1)}, batch {batch}": (threads, batch) for threads in (1, 2) for batch in (1, 32)
}
"""Threads and samples a run with which latencies are measured."""


def latency_table(latencies: Sequence[Row]) -> Table:
    made = Table("network", "--round-to", "MACs", *RACES, title="latency: ratio to the original")
    for row in latencies:
        made.add_row(*(str(row[key]) for key in ("network", "round_to", "macs", *RACES)))
    return made
