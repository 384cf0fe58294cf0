"""Compare selectors, formulations, refits and other tools on labelled test data; calibration stays unlabelled, nothing is fine-tuned unasked.

    python tools/compare_methods.py MODEL... --data calibration.npz --test test.npz --labels labels.npy --channels 0.5 0.25 --only '*conv1*'

Every method prunes every model to every budget, once for each subset of the calibration data (--subsets, --samples) and, where it
draws at random, each seed: mean and spread over those. Prints a table a model, and writes JSON and, with matplotlib, a plot of
accuracy against multiply-accumulates. Other tools are rows where they are installed (see tools/peers.py). What a method cannot do stands
in its cell. With --finetune STEPS there is a second row for each method of this package, the same with fine-tuning on the same samples.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from onnx_subprune import Channels, Macs, Params
from onnx_subprune.errors import OptionError
from onnx_subprune.runtime.session import Session
from tools.peers import peers
from tools.rows import ALLOCATED, ROWS, Arrays, Budget, Case, Method, Row, accuracy, latency, scorer_of


@dataclass(frozen=True, kw_only=True)
class Trials:
    """What every row is tried on: subsets of the calibration data, seeds, and the test."""

    subsets: Sequence[Arrays]
    seeds: Sequence[int]
    test: Arrays
    labels: np.ndarray
    timed: Session | None = None
    """The original, where pruned models are timed in turns with it."""

    def run(self, row: Row, case: Case, budget: Budget) -> dict[str, object]:
        """Return accuracy (mean, spread, all runs) and the share of the multiply-accumulates kept, or the error."""
        runs, kept, times = [], [], []
        for seed in self.seeds if row.draws else self.seeds[:1]:
            for data in self.subsets if row.reads else self.subsets[:1]:
                try:
                    found = row(replace(case, data=data), budget, seed)
                except Exception as error:
                    return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
                runs.append(accuracy(found.scorer, self.test, self.labels))
                kept.append(found.macs)
                if self.timed is not None and found.session is not None:
                    times.append(latency(self.timed, found.session, self.test))
        return {
            "accuracy": statistics.mean(runs),
            "spread": statistics.pstdev(runs),
            "macs": statistics.mean(kept),
            "latency": statistics.mean(times) if times else None,
            "runs": runs,
        }


def subsets(arrays: Arrays, count: int, samples: int | None) -> Iterator[Arrays]:
    """Yield `count` random subsets of `samples`, disjoint where there are enough; one subset is the first samples as they come."""
    total = len(next(iter(arrays.values())))
    size = min(samples or total // count, total)
    generator = np.random.default_rng(0)
    order = generator.permutation(total) if count > 1 else np.arange(total)
    for number in range(count):
        own = (
            order[number * size : (number + 1) * size] if count * size <= total else generator.permutation(total)[:size]
        )
        yield {name: array[own] for name, array in arrays.items()}


def told(result: Mapping[str, object]) -> str:
    """Return a cell of the table."""
    if "error" in result:
        return str(result["error"])[:60]
    spread = f" ± {result['spread']:.1f}" if len(result["runs"]) > 1 else ""
    timed = "" if result.get("latency") is None else f", time {result['latency']:.2f}"
    return f"{result['accuracy']:.1f}{spread} ({100 * result['macs']:.0f} %{timed})"


def plot(results: Mapping[str, Mapping[str, object]], path: Path) -> None:
    """Draw accuracy against the time where it was measured, else against multiply-accumulates kept, one panel a model."""
    import matplotlib as mpl  # noqa: PLC0415 - only where a plot is asked for

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415 - as above

    figure, panels = plt.subplots(1, len(results), figsize=(8 * len(results), 6), squeeze=False)
    cells = [cell for found in results.values() for row in found["rows"].values() for cell in row.values()]
    measure = "latency" if any(cell.get("latency") is not None for cell in cells) else "macs"
    shown = {"latency": "time of the original", "macs": "share of multiply-accumulates kept"}[measure]
    for axes, (model, found) in zip(panels[0], results.items(), strict=True):
        for number, (name, row) in enumerate(found["rows"].items()):
            points = sorted(
                (r[measure], r["accuracy"], r["spread"]) for r in row.values() if r.get(measure) is not None
            )
            if points:
                macs, accuracies, spreads = zip(*points, strict=True)
                style = "o^sDvX"[number // 10 % 6] + "-"
                axes.errorbar(macs, accuracies, spreads, fmt=style, capsize=3, markersize=4, linewidth=1, label=name)
        axes.axhline(found["unpruned"], color="black", linestyle=":", linewidth=1)
        axes.set(title=Path(model).stem, xlabel=shown, ylabel="accuracy (%)")
        axes.legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="they share the data")
    parser.add_argument("--data", required=True, help="npz with one array an input")
    parser.add_argument("--test", required=True, help="npz with one array an input")
    parser.add_argument("--labels", required=True, help="npy")
    parser.add_argument("--channels", type=float, nargs="*", default=[])
    parser.add_argument("--macs", type=float, nargs="*", default=[])
    parser.add_argument("--params", type=float, nargs="*", default=[])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--methods", nargs="*", default=[""], help="names of rows, or parts of them (default: all)")
    parser.add_argument("--samples", type=int, help="calibration samples of each subset")
    parser.add_argument("--subsets", type=int, default=1, help="random subsets of the calibration data")
    parser.add_argument("--seeds", type=int, default=3, help="for methods that draw at random")
    parser.add_argument(
        "--latency", action="store_true", help="time pruned models of onnxruntime in turns with the original"
    )
    parser.add_argument("--finetune", type=int, metavar="STEPS", help="each method with fine-tuning as well")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    return parser.parse_args(arguments)


def with_finetuning(rows: Mapping[str, Row], steps: int) -> dict[str, Row]:
    """Return the rows, and behind each one of this package the same with so many steps of fine-tuning."""
    found: dict[str, Row] = {}
    for name, row in rows.items():
        found[name] = row
        if isinstance(row, Method):
            found[f"{name}, fine-tuned"] = replace(row, finetune=steps, reads=True)
    return found


def arrays_of(path: str) -> dict[str, np.ndarray]:
    """Return the arrays of an npz."""
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def main(arguments: Sequence[str] | None = None, known: Mapping[str, Row] | None = None) -> None:
    """Run the comparison, of the rows `known` in place of all."""
    options = parsed(arguments)
    kinds = (("channels", Channels), ("macs", Macs), ("params", Params))
    budgets: dict[str, Budget] = {f"{name} {f}": kind(f) for name, kind in kinds for f in getattr(options, name)}
    every = {**ROWS, **peers()} if known is None else known
    rows = {name: row for name, row in every.items() if any(part in name for part in options.methods)}
    rows = rows if options.finetune is None else with_finetuning(rows, options.finetune)
    if not budgets or not rows:
        raise SystemExit(str(OptionError("give a budget (--channels, --macs, --params) and methods that exist")))
    trials = Trials(
        subsets=list(subsets(arrays_of(options.data), options.subsets, options.samples)),
        seeds=range(options.seeds),
        test=arrays_of(options.test),
        labels=np.load(options.labels),
    )
    results: dict[str, dict[str, object]] = {}
    for model in options.models:
        case = Case(model=model, data=trials.subsets[0], only=tuple(options.only))
        original = Session(model, threads=1)
        unpruned = accuracy(scorer_of(original), trials.test, trials.labels)
        running = replace(trials, timed=original if options.latency else None)
        found: dict[str, dict[str, object]] = {}
        table = Table("method", *budgets, title=f"{model}: accuracy in % (MACs kept); unpruned {unpruned:.2f}")
        for name, row in rows.items():
            found[name] = {
                title: running.run(row, case, budget)
                for title, budget in budgets.items()
                if not (isinstance(budget, Channels) and name.removesuffix(", fine-tuned") in ALLOCATED)
            }
            cells = [told(found[name][title]) if title in found[name] else "" for title in budgets]
            table.add_row(name, *cells)
            print(name, cells, file=sys.stderr, flush=True)
        Console(width=160).print(table)
        results[str(model)] = {"unpruned": unpruned, "rows": found}
        if options.json:
            options.json.write_text(json.dumps({"command": sys.argv[1:], "models": results}, indent=1) + "\n")
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
