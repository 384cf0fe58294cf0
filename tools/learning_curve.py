"""What more calibration samples bring: accuracy, or likeness to the original, against their number.

    python tools/learning_curve.py MODEL --data pool.npz --test test.npz --macs 0.5 --labels labels.npy --json curve.json --plot curve.png

Every method prunes MODEL to the budget once for each number of samples (--samples) and each draw (--draws) of so many from the pool, and is judged
on the test inputs, of which the pool should hold none. Without labels: the share of the test inputs that the original puts in the same class, where the
first output is a vector of scores, else the mean cosine between its rows; in per cent. Calibration stays unlabelled, nothing is fine-tuned.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from onnx_subprune import Macs, MarginalCost, Params
from onnx_subprune.pruning.resources import Resources
from onnx_subprune.runtime.session import Session
from tools.compare_methods import arrays_of
from tools.rows import BATCH, PLAIN, Arrays, Budget, Case, Method, Scorer, accuracy, scorer_of

METHODS: Mapping[str, Method] = {
    "default": Method(selector="refined", allocator=MarginalCost(), resources=Resources()),
    "default, no refit": Method(selector="refined", allocator=MarginalCost(), refit=None),
    "the paper: forward, asymmetric, its own refit": Method(selector="forward", refit=PLAIN),
    "wanda, no refit": Method(selector="wanda", refit=None),
    "weight norm, no refit": Method(selector="weight-norm", refit=None),
}
"""By the name in the table."""

Judge = Callable[[Scorer], float]


def likeness(original: Scorer, inputs: Arrays) -> Judge:
    """Return what judges a model by its likeness to the original on `inputs`, in per cent."""

    def read(scorer: Scorer) -> np.ndarray:
        total = len(next(iter(inputs.values())))
        parts = [
            {key: array[start : start + BATCH] for key, array in inputs.items()} for start in range(0, total, BATCH)
        ]
        return np.concatenate([scorer(part) for part in parts])

    wanted = read(original)

    def judge(scorer: Scorer) -> float:
        found = read(scorer)
        if wanted.ndim == 2 and wanted.shape[1] > 1:
            return 100 * float(np.mean(found.argmax(axis=1) == wanted.argmax(axis=1)))
        ours, theirs = (np.asarray(item, np.float64).reshape(len(item), -1) for item in (found, wanted))
        norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        return 100 * float(np.mean(np.sum(ours * theirs, axis=1) / np.maximum(norms, 1e-300)))

    return judge


def curve(
    method: Method, case: Case, budget: Budget, samples: Sequence[int], draws: int, judge: Judge
) -> dict[int, list[float]]:
    """Return, for each number of samples, what comes of each draw."""
    total = len(next(iter(case.data.values())))
    found: dict[int, list[float]] = {}
    for count in samples:
        found[count] = []
        for draw in range(draws):
            own = np.random.default_rng(draw).permutation(total)[:count]  # the first of one order: sets are nested
            some = replace(case, data={name: array[own] for name, array in case.data.items()})
            found[count].append(judge(method(some, budget, draw).scorer))
    return found


def plot(results: Mapping[str, Mapping[int, Sequence[float]]], unpruned: float, title: str, path: Path) -> None:
    """Draw one line a method, with the spread over the draws."""
    import matplotlib as mpl  # noqa: PLC0415 - only where a plot is asked for

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415 - as above

    figure, axes = plt.subplots(figsize=(8, 6))
    for name, found in results.items():
        means, spreads = (
            [measure(runs) for runs in found.values()] for measure in (statistics.mean, statistics.pstdev)
        )
        axes.errorbar([*found], means, spreads, fmt="o-", capsize=3, markersize=4, linewidth=1, label=name)
    axes.axhline(unpruned, color="black", linestyle=":", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set(title=title, xlabel="calibration samples", ylabel="per cent")
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument(
        "--data", required=True, help="npz with one array an input: the pool that samples are drawn from"
    )
    parser.add_argument("--test", required=True, help="npz with one array an input")
    parser.add_argument("--labels", help="npy; without them, likeness to the original")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--macs", type=float)
    budget.add_argument("--params", type=float)
    parser.add_argument("--samples", type=int, nargs="*", default=[32, 64, 128, 256, 512])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--methods", nargs="*", default=[""], help="names of methods, or parts of them (default: all)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the curves, print them as a table."""
    options = parsed(arguments)
    budget: Budget = Params(options.params) if options.macs is None else Macs(options.macs)
    pool, test = arrays_of(options.data), arrays_of(options.test)
    samples = [count for count in options.samples if count <= len(next(iter(pool.values())))]
    original = scorer_of(Session(options.model))
    judge = likeness(original, test)
    if options.labels:
        labels = np.load(options.labels)
        judge = lambda scorer: accuracy(scorer, test, labels)  # noqa: E731 - one of two
    table = Table("method", *(str(count) for count in samples))
    results, unpruned = {}, judge(original)
    for name, method in METHODS.items():
        if any(part in name for part in options.methods):
            found = curve(method, Case(model=options.model, data=pool), budget, samples, options.draws, judge)
            results[name] = found
            table.add_row(
                name, *(f"{statistics.mean(runs):.1f} ± {statistics.pstdev(runs):.1f}" for runs in found.values())
            )
    Console().print(f"{options.model.stem}, {budget}: unpruned {unpruned:.1f}", table)
    if options.json:
        options.json.write_text(
            json.dumps(
                {"model": str(options.model), "budget": str(budget), "unpruned": unpruned, "runs": results}, indent=2
            )
        )
    if options.plot:
        plot(results, unpruned, f"{options.model.stem}, {budget}", options.plot)


if __name__ == "__main__":
    main()
