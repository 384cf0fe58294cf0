"""Collecting on two processes against one: speed, equality of the bytes, size of the files.

    python tools/benchmark_shards.py models/resnet_fashion.onnx models/fashion_calibration.npz

Every process has one thread. Both ways run in turns, so that drift of the machine hits both; the seconds of the processor tell what the
ratio would be on cores that nobody else uses. Start-up (imports, tracing the model) is not counted: it is paid once a process.
"""

import argparse
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from onnx_subprune import Resources, collect, merge


@dataclass(frozen=True)
class Run:
    """Seconds of one shard: by the clock, and of the processor."""

    wall: float
    cpu: float


def shard(model: str, data: str, path: str, number: int, count: int) -> Run:
    wall, cpu = time.perf_counter(), time.process_time()
    collect(model, data, path, shard=(number, count), resources=Resources(threads=1), force=True)
    return Run(time.perf_counter() - wall, time.process_time() - cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    context = get_context("spawn")
    with TemporaryDirectory() as folder, ProcessPoolExecutor(2, context) as pool:
        whole, parts, merged = f"{folder}/whole", [f"{folder}/1", f"{folder}/2"], Path(folder) / "merged"
        list(pool.map(shard, [options.model] * 2, [options.data] * 2, parts, (1, 2), (2, 2)))  # imports
        ones, twos = [], []
        for _ in range(options.rounds):
            ones.append(pool.submit(shard, options.model, options.data, whole, 1, 1).result())
            start = time.perf_counter()
            both = list(pool.map(shard, [options.model] * 2, [options.data] * 2, parts, (1, 2), (2, 2)))
            twos.append(Run(time.perf_counter() - start, max(run.cpu for run in both)))
        start = time.perf_counter()
        merge([Path(part) for part in parts], merged)
        print(f"merge: {time.perf_counter() - start:.2f} s, {merged.stat().st_size / 1e6:.1f} MB")
        print("same bytes as one shard:", merged.read_bytes() == Path(whole).read_bytes())
    for name in ("wall", "cpu"):
        one, two = ([getattr(run, name) for run in runs] for runs in (ones, twos))
        ratio = statistics.median(a / b for a, b in zip(one, two, strict=True))
        print(
            f"{name}: one process {statistics.median(one):.2f} s, two {statistics.median(two):.2f} s, ratio {ratio:.2f}"
        )


if __name__ == "__main__":
    main()
