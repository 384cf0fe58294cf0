"""What pruning costs: seconds by stage, peak memory, in forward passes and against the floor; and what it brings in latency.

    python tools/benchmark.py [--quick | --cases NAME ...] [--memory 4G] [--json FILE] [--plot FILE.png] [MODEL.onnx DATA.npz ...]

Every case runs in a fresh process: `prune` with uniform widths (half of every group). The floor is the time of the products that
cannot be avoided, at the measured rate of float32 products, plus one forward pass of the original and one of the pruned model: for
every contraction half of n p^2 multiply-adds for the gram, by symmetry, a third of that again for 3 x 3 and larger at stride 1, by
lags, and n p m for the cross-moments. Drawing positions can go below it. The second table has the latency of the pruned models by
--round-to, measured in turns with the original at batches of 1 and 32 by one and two threads, beside their multiply-accumulates: of the models that are given,
with the default allocation, and of the ResNet-50 size, with uniform widths, where that is among the cases. A case that fails is told
and left out; the JSON is written after every case. --cases: synthetic networks by name, as in the table; "none" for the models alone.
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
from benchmark_views import RACES, growth, latency_table, plot, table
from rich.console import Console
from synthetic import Residual

from onnx_subprune import Channels, Macs, MarginalCost, Uniform, prune
from onnx_subprune.cli.options import bytes_of
from onnx_subprune.evaluation.timing import latency_ratio
from onnx_subprune.graph.contractions.convolution import Convolution
from onnx_subprune.graph.contractions.reading import kernel_of
from onnx_subprune.graph.network import load
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.resources import Resources
from onnx_subprune.runtime.session import Session

Row = dict[str, object]
SECONDS = 5.0
"""How long a latency ratio is measured."""

LARGE = "ResNet-50 size"
NETWORKS = {
    "depth 1, width 16": Residual((1, 1, 1), 16, 32),
    "depth 3, width 16": Residual((3, 3, 3), 16, 32),
    "depth 9, width 16": Residual((9, 9, 9), 16, 32),
    "depth 3, width 32": Residual((3, 3, 3), 32, 32),
    "depth 3, width 64": Residual((3, 3, 3), 64, 32),
    LARGE: Residual((3, 4, 6, 3), 64, 224, bottleneck=True, classes=1000),
}
CASES = [
    *(("depth 3, width 16", samples) for samples in (64, 256, 1024, 4096)),
    *((name, 256) for name in NETWORKS if name not in ("depth 3, width 16", LARGE)),
    (LARGE, 64),
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
        by_lags = isinstance(kernel, Convolution) and kernel.taps > 1 and set(kernel.strides) == {1}
        total += groups * rows * (p * p / 2 / (3 if by_lags else 1) + p * m)
    return total


def peak_memory() -> float:
    """Most bytes that this process has taken. What `getrusage` says can be its parent's, where it was started from a large one."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return 1024 * float(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
    except (OSError, StopIteration):
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(model: Path, data: Path, memory: int | None) -> Row:
    """One case, in this process."""
    start, cpu = time.perf_counter(), time.process_time()
    result = prune(model, data, budget=Channels(0.5), round_to=1, resources=Resources(memory=memory))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = peak_memory() / 1e6
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


def rounded(model: Path, data: Path, *, quick: bool) -> list[Row]:
    """Latency ratios with so many threads and samples a run, and multiply-accumulates ratio by --round-to; quick: uniform widths and no refit, on 8 samples."""
    held = np.load(data)
    x = held if isinstance(held, np.ndarray) else next(iter(held.values()))
    originals, found = {threads: Session(model, threads=threads) for threads, _ in RACES.values()}, list[Row]()
    name = originals[1].inputs[0].name
    for size in (1, 8, 16):
        if quick:
            result = prune(model, x[:8], budget=Macs(0.5), allocator=Uniform(), refit=None, round_to=size)
        else:
            result = prune(model, x, budget=Macs(0.5), allocator=MarginalCost(), round_to=size)
        macs, ratios = result.report.macs, dict[str, object]()
        for label, (threads, batch) in RACES.items():
            pruned = Session(result.model, threads=threads)
            ratio = latency_ratio(originals[threads], pruned, {name: x[:batch]}, seconds=SECONDS)
            ratios[label] = round(ratio, 3)
        found.append({"round_to": size, "macs": round(macs.after / macs.before, 3), **ratios})
    return found


def fresh(*arguments: str) -> object | None:
    """Run this script in a new process and return what it prints; None, with its last words on stderr, if it fails."""
    done = subprocess.run([sys.executable, __file__, *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"failed ({done.returncode}): {' '.join(arguments)}: {last}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def arguments_of(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="models, each followed by its data")
    parser.add_argument("--quick", action="store_true", help="small cases only")
    parser.add_argument("--cases", nargs="+", choices=[*NETWORKS, "none"], help="only these synthetic networks")
    parser.add_argument("--memory", help="as for prune")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--case", choices=("measure", "rounded", "rounded-quick"), help=argparse.SUPPRESS)
    return parser.parse_args(words)


def chosen(given: argparse.Namespace) -> list[tuple[str, int]]:
    if given.cases:
        return [(name, samples) for name, samples in CASES if name in given.cases]
    return QUICK if given.quick else CASES


def one(given: argparse.Namespace) -> object:
    """The hidden --case: what a fresh process does."""
    model, data = given.files
    if given.case == "measure":
        return measure(model, data, bytes_of(given.memory))
    return rounded(model, data, quick=given.case == "rounded-quick")


def main(words: Sequence[str]) -> int:
    given = arguments_of(words)
    if given.case is not None:
        print(json.dumps(one(given)))
        return 0
    console, rows, latencies = Console(width=None if sys.stdout.isatty() else 150), list[Row](), list[Row]()
    limit = ["--memory", given.memory] if given.memory else []

    def keep() -> None:
        if given.json:
            text = json.dumps({"cases": rows, "round_to": latencies}, indent=1)
            given.json.write_text(text + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory() as folder:
        cases = [("LeNet", MODELS / "lenet_fashion.onnx", MODELS / "fashion_calibration.npz")]
        own = [(path.stem, path, data) for path, data in zip(given.files[::2], given.files[1::2], strict=True)]
        races = [("rounded", *case) for case in own]
        cases += own
        for name, samples in chosen(given):
            model, data = Path(folder) / f"{name}.onnx", Path(folder) / f"{samples}.{NETWORKS[name].size}.npy"
            onnx.save(NETWORKS[name].model(), model)
            np.save(data, NETWORKS[name].images(samples))
            cases.append((name, model, data))
        large = [("rounded-quick", *case) for case in cases if case[0] == LARGE]
        races += large or [("rounded-quick", *cases[-1])] * (not own)
        for kind, name, model, data in races:
            found = fresh("--case", kind, str(model), str(data))
            latencies += [{"network": name, **row} for row in found] if isinstance(found, list) else []
            keep()
        for name, model, data in cases:
            found = fresh("--case", "measure", str(model), str(data), *limit)
            if isinstance(found, dict):
                rows.append({"network": name, **found})
                console.print(f"{name}: {rows[-1]['passes']} passes, {rows[-1]['peak_mb']} MB", highlight=False)
            keep()
    for made in (table(rows), growth(rows), latency_table(latencies)):
        console.print(made)
    if given.plot:
        plot(rows, given.plot)
    return 0 if len(rows) == len(cases) and len({row["network"] for row in latencies}) == len(races) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
