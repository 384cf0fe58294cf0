"""Times the products of calibration chunks, and compares them with a plain float32 product of as many multiply-adds.

    python tools/benchmark_moments.py [TABLE]

For every layer shape: seconds for the gram, for the cross-moments, for both as `Collector` takes them, and for `moments()`;
the useful GFLOP/s (a gram counts n p^2 / 2 multiply-adds, a cross n p m); and the time relative to one sgemm with as many
multiply-adds. Below 1 the products cost less than the floor of unfolded products. TABLE also receives the lines.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnx_subprune.calibration.moments.accumulator import Collector
from onnx_subprune.calibration.moments.products import Lagging, Unfolding
from onnx_subprune.graph.contractions.convolution import Conv
from onnx_subprune.graph.contractions.kernel import Kernel

CHUNK = 32


@dataclass(frozen=True)
class Layer:
    """A convolution with square kernel, image and padding that keeps the size at stride 1."""

    name: str
    inputs: int
    outputs: int
    size: int
    kernel: int
    samples: int
    groups: int = 1
    stride: int = 1

    @property
    def contraction(self) -> Kernel:
        """The layer as `Collector` takes it."""
        k = self.kernel
        return Conv(
            node=self.name,
            groups=self.groups,
            kernel=(k, k),
            strides=(self.stride,) * 2,
            dilations=(1, 1),
            pads=(k // 2,) * 4,
        )


LAYERS = [
    Layer("16ch 32x32 3x3", 16, 16, 32, 3, 512),
    Layer("32ch 16x16 3x3", 32, 32, 16, 3, 512),
    Layer("64ch 8x8 3x3", 64, 64, 8, 3, 512),
    Layer("16->32 32x32 3x3/2", 16, 32, 32, 3, 512, stride=2),
    Layer("64ch 56x56 3x3", 64, 64, 56, 3, 64),
    Layer("256->64 56x56 1x1", 256, 64, 56, 1, 64),
    Layer("512->2048 7x7 1x1", 512, 2048, 7, 1, 128),
    Layer("512ch 4x4 3x3", 512, 512, 4, 3, 256),
    Layer("depthwise 96ch 28x28 3x3", 96, 96, 28, 3, 64, groups=96),
    Layer("20->50 12x12 5x5 same", 20, 50, 12, 5, 512),
    Layer("3->64 112x112 7x7/2", 3, 64, 112, 7, 64, stride=2),
]


def best(work: Callable[[], object], times: int = 3) -> float:
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


def sgemm_rate(p: int, m: int) -> float:
    """Multiply-adds a second of a plain product with these sides."""
    n = max(256, int(2e9 / p / m))
    a, b = np.ones((p, n), np.float32), np.ones((n, m), np.float32)
    return n * p * m / best(lambda: a @ b)


def measure(layer: Layer) -> str:
    contraction, generator = layer.contraction, np.random.default_rng(0)
    out = -(-layer.size // layer.stride)
    x = generator.standard_normal((layer.samples, layer.inputs, layer.size, layer.size), np.float32)
    y = generator.standard_normal((layer.samples, layer.outputs, out, out), np.float32)

    def collect(*, with_gram: bool, with_cross: bool) -> Collector:
        collector = Collector(contraction, with_gram=with_gram)
        for start in range(0, len(x), CHUNK):
            part = slice(start, start + CHUNK)
            collector.add(x[part], y[part] if with_cross else None)
        return collector

    p, m = layer.inputs // layer.groups * contraction.taps, layer.outputs // layer.groups
    n = layer.samples * out * out * layer.groups
    gram, cross, both = (
        best(lambda g=g, c=c: collect(with_gram=g, with_cross=c))
        for g, c in ((True, False), (False, True), (True, True))
    )
    collector = collect(with_gram=True, with_cross=True)
    route = {Lagging: "lags", Unfolding: "unfold"}[type(collector._route)]
    finish = best(collector.moments, 1)
    work = n * p * (p / 2 + m)
    floor = n * p * p / 2 / sgemm_rate(p, p) + n * p * m / sgemm_rate(p, m)
    seconds = f"{gram:8.3f} {cross:8.3f} {both:8.3f} {finish:8.3f}"
    return f"{layer.name:26} {route:7} {seconds} {2 * work / both / 1e9:9.1f} {both / floor:9.2f}"


def main(arguments: list[str]) -> int:
    names = ("gram s", "cross s", "both s", "finish s")
    head = f"{'layer':26} {'route':7} {' '.join(f'{name:>8}' for name in names)} {'GFLOP/s':>9} {'/ sgemm':>9}"
    lines = [head]
    print(head)
    for layer in LAYERS:
        lines.append(measure(layer))
        print(lines[-1], flush=True)
    if arguments:
        Path(arguments[0]).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
