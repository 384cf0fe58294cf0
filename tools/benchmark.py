"""What pruning costs: seconds by stage, peak memory, in forward passes and against the floor; and what it brings in latency.

    python tools/benchmark.py [--quick] [--memory 4G] [--json FILE] [--plot FILE.png] [MODEL.onnx DATA.npz ...]

Every case runs in a fresh process: `prune` with uniform widths (half of every group). The floor is the time of the products that
cannot be avoided, at the measured rate of float32 products, plus one forward pass of the original and one of the pruned model: for
every contraction half of n p^2 multiply-adds for the gram, by symmetry, a third of that again for 3 x 3 and larger at stride 1, by
lags, and n p m for the cross-moments. Drawing positions can go below it. The second table has the latency of the pruned model by
--round-to, measured in turns with the original, beside its multiply-accumulates.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from synthetic import Residual

from onnx_subprune import Channels, Macs, Uniform, prune
from onnx_subprune.calibration.kernel import CONVOLUTIONS
from onnx_subprune.cli.options import bytes_of
from onnx_subprune.graph.model import load
from onnx_subprune.graph.trace import trace
from onnx_subprune.pipeline import Resources
from onnx_subprune.runtime import Session, latency_ratio
from onnx_subprune.task import kernel_of

Row = dict[str, object]

NETWORKS = {
    "depth 1, width 16": Residual((1, 1, 1), 16, 32),
    "depth 3, width 16": Residual((3, 3, 3), 16, 32),
    "depth 9, width 16": Residual((9, 9, 9), 16, 32),
    "depth 3, width 32": Residual((3, 3, 3), 32, 32),
    "depth 3, width 64": Residual((3, 3, 3), 64, 32),
    "ResNet-50 size": Residual((3, 4, 6, 3), 64, 224, bottleneck=True, classes=1000),
}
CASES = [
    *(("depth 3, width 16", samples) for samples in (64, 256, 1024, 4096)),
    *((name, 256) for name in NETWORKS if name != "depth 3, width 16"),
]
QUICK = [("depth 1, width 16", 64), ("depth 1, width 16", 256), ("depth 3, width 16", 64)]
MODELS = Path(__file__).parents[1] / "models"


def best(work: Callable[[], object], times: int = 3) -> float:
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


def floor_operations(model: Path, samples: int) -> float:
    """Multiply-adds of the moments that cannot be avoided."""
    network = load(model)
    graph, total = trace(network), 0.0
    for contraction in graph.contractions:
        kernel, weights = kernel_of(network, contraction)
        groups, p, m = weights.shape
        shape = graph.observation.shapes[contraction.output.tensor]
        rows = samples * np.prod(shape[1:], dtype=np.int64) / (groups * m)
        by_lags = kernel.kind in CONVOLUTIONS and kernel.taps > 1 and set(kernel.strides) == {1}
        total += groups * rows * (p * p / 2 / (3 if by_lags else 1) + p * m)
    return total


def measure(model: Path, data: Path, memory: int | None) -> Row:
    """One case, in this process."""
    start, cpu = time.perf_counter(), time.process_time()
    result = prune(model, data, budget=Channels(0.5), resources=Resources(memory=memory))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    original, pruned = Session(model), Session(result.model)
    name = original.inputs[0].name
    held = np.load(data, mmap_mode="r")
    x = held if isinstance(held, np.ndarray) else next(iter(held.values()))

    def forward(session: Session) -> float:
        session.run({name: x[:32]})
        return best(lambda: [session.run({name: x[at : at + 32]}) for at in range(0, len(x), 32)], 2)

    once, half = forward(original), forward(pruned)
    a = np.ones((512, 4096), np.float32)
    rate = 512 * 512 * 4096 / best(lambda: a @ a.T, 5)
    floor = floor_operations(model, len(x)) / rate + once + half
    return {
        "samples": len(x),
        "parameters": result.report.params.before,
        "seconds": {
            **{key: round(value, 3) for key, value in result.report.seconds.items()},
            "total": round(seconds, 3),
        },
        "cpu": round(cpu, 2),
        "peak_mb": round(peak),
        "forward": round(once, 3),
        "passes": round(seconds / once, 1),
        "floor": round(floor, 3),
        "over_floor": round(seconds / floor, 2),
    }


def rounded(model: Path, data: Path) -> list[Row]:
    """Latency ratio and multiply-accumulates ratio by --round-to."""
    held = np.load(data)
    x = held if isinstance(held, np.ndarray) else next(iter(held.values()))
    original, found = Session(model), list[Row]()
    for size in (1, 8, 16):
        result = prune(model, data, budget=Macs(0.5), allocator=Uniform(), round_to=size)
        macs = result.report.macs
        ratio = latency_ratio(original, Session(result.model), {original.inputs[0].name: x[:32]}, seconds=3.0)
        found.append({"round_to": size, "macs": round(macs.after / macs.before, 3), "latency": round(ratio, 3)})
    return found


def fresh(*arguments: str) -> object:
    """Run this script in a new process and return what it prints."""
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(rows: Sequence[Row]) -> Table:
    heads = ("samples", "peak_mb", "forward", "passes", "floor", "over_floor")
    stages = ("trace", "calibrate", "select", "refit", "verify", "total")
    made = Table("network", *heads, *(f"{stage} s" for stage in stages), title="half of every group")
    for row in rows:
        seconds = row["seconds"]
        assert isinstance(seconds, dict)
        made.add_row(str(row["network"]), *(str(row[k]) for k in heads), *(f"{seconds[s]:.2f}" for s in stages))
    return made


def plot(rows: Sequence[Row], path: Path) -> None:
    figure = Figure(figsize=(11, 4.5))
    left, right = figure.subplots(1, 2)
    for axes, key, label in ((left, "passes", "forward passes"), (right, "peak_mb", "peak memory, MB")):
        for name in dict.fromkeys(str(row["network"]) for row in rows):
            mine = [row for row in rows if row["network"] == name]
            axes.plot([row["samples"] for row in mine], [row[key] for row in mine], "o-", label=name)
        axes.set(xscale="log", xlabel="calibration samples", ylabel=label, ylim=(0, None))
    right.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def arguments_of(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="models, each followed by its data")
    parser.add_argument("--quick", action="store_true", help="small cases only")
    parser.add_argument("--memory", help="as for prune")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--case", choices=("measure", "rounded"), help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main(words: Sequence[str]) -> int:
    given = arguments_of(words)
    if given.case is not None:
        model, data = given.files
        found = measure(model, data, bytes_of(given.memory)) if given.case == "measure" else rounded(model, data)
        print(json.dumps(found))
        return 0
    console, rows = Console(), list[Row]()
    limit = ["--memory", given.memory] if given.memory else []
    with tempfile.TemporaryDirectory() as folder:
        cases = [("LeNet", MODELS / "lenet_fashion.onnx", MODELS / "fashion_calibration.npz")]
        cases += [(path.stem, path, data) for path, data in zip(given.files[::2], given.files[1::2], strict=True)]
        for name, samples in QUICK if given.quick else CASES:
            model, data = Path(folder) / f"{name}.onnx", Path(folder) / f"{samples}.{NETWORKS[name].size}.npy"
            onnx.save(NETWORKS[name].model(), model)
            np.save(data, NETWORKS[name].images(samples))
            cases.append((name, model, data))
        for name, model, data in cases:
            found = fresh("--case", "measure", str(model), str(data), *limit)
            assert isinstance(found, dict)
            rows.append({"network": name, **found})
            console.print(f"{name}: {rows[-1]['passes']} passes, {rows[-1]['peak_mb']} MB", highlight=False)
        latencies = {"network": cases[-1][0], "rows": fresh("--case", "rounded", *map(str, cases[-1][1:]))}
    console.print(table(rows))
    second = Table("--round-to", "MACs", "latency", title=f"{latencies['network']}: ratio to the original")
    assert isinstance(latencies["rows"], list)
    for row in latencies["rows"]:
        second.add_row(*(str(row[key]) for key in ("round_to", "macs", "latency")))
    console.print(second)
    if given.json:
        given.json.write_text(json.dumps({"cases": rows, "round_to": latencies}, indent=1) + "\n", encoding="utf-8")
    if given.plot:
        plot(rows, given.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
