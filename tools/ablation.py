"""What every ingredient of the default method brings, and what it costs: each switched off (or exchanged) alone.

    python tools/ablation.py MODEL --data calibration.npz --test test.npz --labels labels.npy --macs 0.5 0.25

Prints, for each budget (--params as well) and ingredient, the accuracy without it, the points that it brings, and the seconds of the processor that it takes;
calibration stays unlabelled. --json writes the same.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rows import Case, Method, accuracy, scorer_of

from onnx_subprune import Layerwise, Macs, MarginalCost, Params, Refit, Sequential, Uniform
from onnx_subprune.pruning.resources import Resources
from onnx_subprune.runtime.session import Session

DEFAULT = Method(selector="refined", allocator=MarginalCost(), resources=Resources())
VARIANTS: Mapping[str, Method] = {
    "allocation by sensitivity (else uniform widths)": replace(DEFAULT, allocator=Uniform()),
    "allocation: power 0.7 (else 1)": replace(DEFAULT, allocator=MarginalCost(power=1.0)),
    "asymmetric formulation (else sequential)": replace(DEFAULT, formulation=Sequential()),
    "asymmetric formulation (else layerwise)": replace(DEFAULT, formulation=Layerwise()),
    "residual-aware targets": replace(DEFAULT, refit=Refit(residual=False)),
    "refit of every contraction": replace(DEFAULT, refit=Refit(everywhere=False)),
    "activation-aware targets": replace(DEFAULT, refit=Refit(rounds=0)),
    "one renewal of targets (else three)": replace(DEFAULT, refit=Refit(rounds=3)),
    "refit of layers together with their readers": replace(DEFAULT, refit=Refit(joint=0)),
    "steps of both while worth it (else one)": replace(DEFAULT, refit=Refit(joint=1)),
    "refit at all": replace(DEFAULT, refit=None),
    "refined selection (else backward)": replace(DEFAULT, selector="backward"),
    "refined selection (else forward)": replace(DEFAULT, selector="forward"),
    "refined selection (else random)": replace(DEFAULT, selector="random"),
    "small networks: images moved by a pixel": replace(DEFAULT, resources=Resources(shifts=False)),
    "small networks: trials of widths": replace(DEFAULT, resources=Resources(trials=0)),
}
"""By the ingredient that is off."""


def measured(
    method: Method, case: Case, budget: Macs | Params, test: Mapping[str, np.ndarray], labels: np.ndarray
) -> tuple[float, float]:
    """Return accuracy in percent, and seconds of the processor."""
    start = time.process_time()
    found = method(case, budget, 0)
    seconds = time.process_time() - start
    return accuracy(found.scorer, test, labels), seconds


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", required=True, help="npz with one array an input")
    parser.add_argument("--test", required=True, help="npz with one array an input")
    parser.add_argument("--labels", required=True, help="npy")
    parser.add_argument("--macs", type=float, nargs="+", default=[])
    parser.add_argument("--params", type=float, nargs="+", default=[])
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), help="parts of the names of ingredients")
    parser.add_argument("--json", type=Path)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the ablation."""
    options = parsed(arguments)
    data, test = (dict(np.load(path)) for path in (options.data, options.test))
    labels, case = np.load(options.labels), Case(model=options.model, data=data)
    chosen = {name: method for name, method in VARIANTS.items() if any(part in name for part in options.only)}
    results: dict[str, dict[str, dict[str, float]]] = {}
    console = Console(width=120)
    console.print(f"unpruned: {accuracy(scorer_of(Session(options.model)), test, labels):.2f} %")
    for budget in [*map(Macs, options.macs), *map(Params, options.params)] or [Macs(0.5)]:
        best, spent = measured(DEFAULT, case, budget, test, labels)
        rows = results[str(budget)] = {"default": {"accuracy": best, "seconds": spent}}
        table = Table(
            "without",
            "accuracy",
            "brings",
            "costs (s)",
            title=f"{budget}: default {best:.2f} %, {spent:.0f} s",
        )
        for name, method in chosen.items():
            found, seconds = measured(method, case, budget, test, labels)
            rows[name] = {"accuracy": found, "seconds": seconds}
            table.add_row(name, f"{found:.2f}", f"{best - found:+.2f}", f"{spent - seconds:+.1f}")
        console.print(table)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
