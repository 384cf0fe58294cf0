"""Compare selectors, formulations and refits on labelled test data; calibration stays unlabelled.

    python tools/compare_methods.py MODEL --data calibration.npz --test test.npz --labels labels.npy --channels 0.5 0.25 --only '*conv1*'

Prints a table of accuracies, one row a method, one column a budget (mean and spread over seeds where a method draws), and
writes JSON and, with matplotlib, a plot of accuracy against multiply-accumulates.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from onnx_subprune import Asymmetric, Channels, Layerwise, Macs, MarginalCost, Params, Refit, Sequential, Uniform, prune
from onnx_subprune.pipeline import Resources
from onnx_subprune.runtime import Session
from onnx_subprune.selection import selectors

PLAIN = Refit(residual=False, everywhere=False, rounds=0)
FULL = Refit()
RANDOM = ("random", "layer-sampling")


@dataclass(frozen=True)
class Method:
    """One row of the table."""

    selector: str
    formulation: object = Asymmetric()
    refit: Refit | None = FULL
    allocation: object = Uniform()


METHODS: Mapping[str, Method] = {
    "forward, asymmetric, all refits": Method("forward"),
    "backward, asymmetric, all refits": Method("backward"),
    "refined, asymmetric, all refits": Method("refined"),
    "forward, all refits, allocated": Method("forward", allocation=MarginalCost()),
    "forward, asymmetric, paper's refit": Method("forward", refit=PLAIN),
    "forward, sequential": Method("forward", Sequential(), PLAIN),
    "forward, layerwise": Method("forward", Layerwise(), PLAIN),
    **{
        f"{name}, paper's refit": Method(name, refit=PLAIN)
        for name in selectors(0)
        if name not in ("forward", "backward", "refined")
    },
    **{
        f"{name}, no refit": Method(name, Layerwise(), None)
        for name in selectors(0)
        if name not in ("backward", "refined")
    },
}
"""By the name in the table. The allocated one is left out with --channels, where every group keeps the same share."""


def accuracy(model: Session, inputs: Mapping[str, np.ndarray], labels: np.ndarray) -> float:
    """Return the percentage of right answers of the first output."""
    name = model.outputs[0].name
    right = 0
    for start in range(0, len(labels), 64):
        feeds = {key: array[start : start + 64] for key, array in inputs.items()}
        right += int(np.sum(model.run(feeds)[name].argmax(axis=1) == labels[start : start + 64]))
    return 100 * right / len(labels)


def measure(
    method: Method, budget: object, options: argparse.Namespace, test: Mapping[str, np.ndarray], labels: np.ndarray
) -> dict[str, object]:
    """Prune with every seed, and return accuracies and the share of the multiply-accumulates kept."""
    scores, kept = [], 1.0
    for seed in range(options.seeds if method.selector in RANDOM else 1):
        found = prune(
            options.model,
            options.data,
            budget=budget,
            formulation=method.formulation,
            selector=selectors(seed)[method.selector],
            allocator=method.allocation,
            refit=method.refit,
            only=options.only,
            resources=Resources(samples=options.samples),
        )
        scores.append(accuracy(Session(found.model, folder=found.folder), test, labels))
        kept = found.report.macs.ratio
    return {"accuracy": statistics.mean(scores), "spread": statistics.pstdev(scores), "macs": kept}


def plot(results: Mapping[str, Mapping[str, dict[str, float]]], path: Path) -> None:
    """Draw accuracy against multiply-accumulates kept."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 - only where a plot is asked for

    figure, axes = plt.subplots(figsize=(8, 5))
    for name, row in results.items():
        points = sorted((item["macs"], item["accuracy"]) for item in row.values())
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(xlabel="share of multiply-accumulates kept", ylabel="accuracy (%)")
    axes.legend(fontsize=6)
    figure.savefig(path, dpi=120)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--test", required=True, help="npz with one array an input")
    parser.add_argument("--labels", required=True, help="npy")
    parser.add_argument("--channels", type=float, nargs="*", default=[])
    parser.add_argument("--macs", type=float, nargs="*", default=[])
    parser.add_argument("--params", type=float, nargs="*", default=[])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--methods", nargs="*", default=list(METHODS), help="names of rows, or parts of them")
    parser.add_argument("--samples", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparison."""
    options = parsed(arguments)
    with np.load(options.test) as archive:
        test = {name: archive[name] for name in archive.files}
    labels = np.load(options.labels)
    budgets = {f"channels {f}": Channels(f) for f in options.channels}
    budgets |= {f"macs {f}": Macs(f) for f in options.macs} | {f"params {f}": Params(f) for f in options.params}
    chosen = {name: method for name, method in METHODS.items() if any(part in name for part in options.methods)}
    if options.channels:
        chosen.pop("forward, all refits, allocated", None)
    results: dict[str, dict[str, dict[str, object]]] = {}
    table = Table(
        "method",
        *budgets,
        title=f"accuracy (%) of {options.model}, unpruned {accuracy(Session(Path(options.model)), test, labels):.2f}",
    )
    for name, method in chosen.items():
        results[name] = {title: measure(method, budget, options, test, labels) for title, budget in budgets.items()}
        cells = [
            f"{r['accuracy']:.1f}" + (f" ± {r['spread']:.1f}" if r["spread"] else "") for r in results[name].values()
        ]
        table.add_row(name, *cells)
        print(name, cells, flush=True)
    Console(width=140).print(table)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
