"""What pruning costs the sample models of ``models/`` on their test data: points of accuracy, perplexity, decibels.

    python tools/sample_scores.py mobile_fashion --macs 0.5 --samples 64 512
    python tools/sample_scores.py gpt_text --blocks 0.8 0.7 0.6
    python tools/sample_scores.py superres --macs 0.5 --samples 64 --photos FOLDER

All options are the defaults. Each row is one budget and one number of calibration samples: what each draw of them loses, and the mean. `--blocks` is
the share of the parameters that are not in the embedding and the head, as those are that are left.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from onnx_subprune import Macs, Params, Resources, prune
from onnx_subprune.runtime.session import Session
from tools.enlarged_pictures import folder_pairs
from tools.measures import ACCURACY, PERPLEXITY, PSNR, Array, Measure, Numbers

MODELS = Path(__file__).parents[1] / "models"
BATCH = 50
TASKS = {"words": ("lstm_words",), "text": ("gpt_text",), "superres": ("superres",)}
"""Those that are not about clothes."""
MEASURES = {"fashion": ACCURACY, "words": ACCURACY, "text": PERPLEXITY, "superres": PSNR}


def task_of(name: str) -> str:
    """Return what the files of data of a sample model begin with."""
    return next((task for task, names in TASKS.items() if name in names), "fashion")


def read(task: str, part: str) -> Array:
    """Return the calibration or test inputs, of the type that the model takes."""
    with np.load(MODELS / f"{task}_{part}.npz") as file:
        (inputs,) = (file[key] for key in file.files)
    return inputs if inputs.dtype == np.int64 else inputs.astype(np.float32)


def scores(model: Path | onnx.ModelProto, inputs: Array, labels: Array, measure: Measure) -> Numbers:
    """Run the model on one thread; return a number a sample."""
    session = Session(model, threads=1)
    name, output = session.inputs[0].name, session.outputs[0].name
    starts = range(0, len(inputs), BATCH)
    parts = ((inputs[start : start + BATCH], labels[start : start + BATCH]) for start in starts)
    return np.concatenate(
        [measure.each(session.run({name: some.astype(inputs.dtype)}, [output])[output], those) for some, those in parts]
    )


def apart(graph: onnx.GraphProto) -> int:
    """Count the parameters of the embedding of the inputs, and of the dense layer that gives the output."""
    inputs = {item.name for item in graph.input}
    outside = {node.input[0] for node in graph.node if node.op_type == "Gather" and node.input[1] in inputs}
    last = {item.name for item in graph.output}
    outside |= {name for node in graph.node if last & {*node.output} for name in node.input}
    return sum(int(np.prod(item.dims)) for item in graph.initializer if item.name in outside)


def parameters(graph: onnx.GraphProto) -> int:
    """Count the parameters, which are the floating-point initializers."""
    return sum(int(np.prod(item.dims)) for item in graph.initializer if item.data_type == onnx.TensorProto.FLOAT)


def measured(path: Path, count: int, draw: int, budget: Macs | Params, pool: Array) -> onnx.ModelProto:
    """Prune with one draw of `count` samples of the pool and the default options."""
    own = np.random.default_rng(draw).permutation(len(pool))[:count]
    name = Session(path).inputs[0].name
    return prune(path, {name: pool[own]}, budget=budget, resources=Resources(threads=1)).model


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="NAME", help="lenet_fashion, mobile_fashion, gpt_text ...")
    parser.add_argument("--macs", type=float, nargs="*", default=[])
    parser.add_argument("--blocks", type=float, nargs="*", default=[])
    parser.add_argument("--samples", type=int, nargs="*", default=[512])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument(
        "--photos", type=Path, help="judge super-resolution by the pictures of this folder, in place of the test data"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prune, judge, print the table."""
    options = parsed(arguments)
    path = MODELS / f"{options.model}.onnx"
    task = task_of(options.model)
    measure, pool = MEASURES[task], read(task, "calibration")
    if options.photos:
        pairs = folder_pairs(options.photos)
        test, labels = pairs.small.astype(np.float32), pairs.large
    else:
        test, labels = read(task, "test"), np.load(MODELS / f"{task}_test_labels.npy")
    graph = onnx.load(path).graph
    outside, total = apart(graph), parameters(graph)
    before = measure.sum_up(scores(path, test, labels, measure))
    budgets: list[tuple[str, Macs | Params]] = [(f"macs {part}", Macs(part)) for part in options.macs]
    shares = {part: (part * (total - outside) + outside) / total for part in options.blocks}
    budgets += [(f"blocks {part}", Params(share)) for part, share in shares.items()]
    table = Table(
        "budget",
        "samples",
        "each draw",
        "mean",
        "parameters left",
        "seconds",
        title=f"{options.model}: {measure.shown.format(before)}",
    )
    for label, budget in budgets:
        for count in options.samples:
            lost, left, start = [], [], time.process_time()
            for draw in range(options.draws):
                model = measured(path, count, draw, budget, pool)
                lost.append(measure.lost(before, measure.sum_up(scores(model, test, labels, measure))))
                left.append((parameters(model.graph) - apart(model.graph)) / (total - outside))
            each = " ".join(f"{value:.3f}" for value in lost)
            seconds = (time.process_time() - start) / options.draws
            table.add_row(
                label,
                str(count),
                each,
                measure.lost_shown.format(statistics.mean(lost)),
                f"{statistics.mean(left):.3f}",
                f"{seconds:.0f}",
            )
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
