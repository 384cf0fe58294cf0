"""Compare methods for transformers at equal cost, on the sample models of ``models/``; calibration is unlabelled, nothing is fine-tuned.

    python tools/compare_transformers.py vit_fashion --macs 0.7 0.5
    python tools/compare_transformers.py gpt_text --blocks 0.8 0.6

Each row is one method (those of others as published, see tools/published.py), each cell what it loses, the mean over draws of the calibration samples, and
what it keeps of the cost in brackets. `--blocks` is the share of the parameters that are not in the embedding and the head.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from onnx_subprune import Gates, Macs, Params, Resources, Sequential, Uniform, prune
from onnx_subprune._typing import Int64
from onnx_subprune.runtime.session import Session
from onnx_subprune.selection import Choice, Problem, Refined
from tools.peers import Onnxsim, peers
from tools.published import METHODS, Transformer
from tools.rows import PLAIN
from tools.sample_scores import MEASURES, MODELS, apart, parameters, read, scores, task_of

Budget = Macs | Params


@dataclass(frozen=True)
class Plain:
    """The default selector, without other bases for heads, which go with its own type alone."""

    inner: Refined = field(default_factory=Refined)

    def path(
        self, problems: Sequence[Problem], sizes: Sequence[int], cells: Int64, threads: int = 1
    ) -> tuple[Choice, ...]:
        """See `Selector`."""
        return self.inner.path(problems, sizes, cells, threads)


ANY_WIDTH: Mapping[str, object] = {"round_to": 1}
OURS: Mapping[str, Mapping[str, object]] = {
    "default options (widths in blocks)": {},
    "widths of any size": ANY_WIDTH,
    "... without other bases": {**ANY_WIDTH, "selector": Plain()},
    "... the same share of every group": {**ANY_WIDTH, "allocator": Uniform()},
    "... with the paper's refit": {**ANY_WIDTH, "refit": PLAIN},
    "... sequential": {**ANY_WIDTH, "formulation": Sequential()},
    "... channels at random": {**ANY_WIDTH, "selector": "random"},
    "... no refit": {**ANY_WIDTH, "refit": None},
}
"""By the name in the table."""

PEERS = {name: row for name, row in peers().items() if isinstance(row, Onnxsim)}
"""Where it is installed; its pruning of heads changes none of the sample models."""


def ours(
    path: Path, data: Mapping[str, np.ndarray], budget: Budget, options: Mapping[str, object]
) -> tuple[ModelProto, float]:
    """Return what this package makes of the model, and the share of the cost that is left."""
    found = prune(path, data, budget=budget, resources=Resources(threads=1), gates=Gates(accept_any=True), **options)
    cost = found.report.macs if isinstance(budget, Macs) else found.report.params
    return found.model, cost.ratio


def pruned(row: str, path: Path, data: Mapping[str, np.ndarray], budget: Budget) -> tuple[ModelProto, float]:
    """Return the model of a row of the table, and the share of the cost that is left."""
    if row in METHODS:
        kind = "macs" if isinstance(budget, Macs) else "params"
        return METHODS[row](Transformer(path, data, kind), budget.fraction)
    if row in PEERS:
        best, full = PEERS[row].smaller(path, data, budget)
        assert isinstance(best.model, ModelProto)
        return best.model, best.macs / full.macs if isinstance(budget, Macs) else best.params / full.params
    return ours(path, data, budget, OURS[row])


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="NAME", help="vit_fashion, gpt_text")
    parser.add_argument("--macs", type=float, nargs="*", default=[])
    parser.add_argument("--blocks", type=float, nargs="*", default=[])
    parser.add_argument("--methods", nargs="*", default=[""], help="names of rows, or parts of them (default: all)")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--draws", type=int, default=3)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    options = parsed(arguments)
    path, task = MODELS / f"{options.model}.onnx", task_of(options.model)
    measure, pool, test = MEASURES[task], read(task, "calibration"), read(task, "test")
    labels = np.load(MODELS / f"{task}_test_labels.npy")
    graph = onnx.load(path).graph
    outside, total = apart(graph), parameters(graph)
    budgets: dict[str, Budget] = {f"macs {share}": Macs(share) for share in options.macs}
    budgets |= {f"blocks {s}": Params((s * (total - outside) + outside) / total) for s in options.blocks}
    before = measure.sum_up(scores(path, test, labels, measure))
    name = Session(path).inputs[0].name
    draws = [
        {name: pool[np.random.default_rng(draw).permutation(len(pool))[: options.samples]]}
        for draw in range(options.draws)
    ]
    table = Table("method", *budgets, title=f"{options.model}: {measure.shown.format(before)}")
    for row in (*METHODS, *PEERS, *OURS):
        if not any(part in row for part in options.methods):
            continue
        cells = []
        for budget in budgets.values():
            lost, kept, reason = [], [], ""
            for data in draws:
                try:
                    model, left = pruned(row, path, data, budget)
                except ValueError as error:  # what another tool cannot reach
                    reason = str(error)
                    break
                lost.append(measure.lost(before, measure.sum_up(scores(model, test, labels, measure))))
                kept.append(left)
            found = reason or f"{measure.lost_shown.format(statistics.mean(lost))} ({statistics.mean(kept):.2f})"
            cells.append(found)
        table.add_row(row, *cells)
        print(row, cells, file=sys.stderr, flush=True)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
