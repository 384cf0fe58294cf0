"""What a cluster would have to do for a model: seconds of the processor a sample, rounds, and bytes of moments that a shard sends.

    python tools/measure_traffic.py models/resnet_fashion.onnx models/fashion_calibration.npz

One process and one thread; `prune` runs here, and what its models are asked for is counted on the way.
"""

import argparse
import pickle
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from onnx_subprune import Asymmetric, Channels, Layerwise, Resources, collect, prune
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.moments.halves import Collected
from onnx_subprune.calibration.streaming.executor import Local, Lockstep, Streams
from onnx_subprune.calibration.streaming.request import Request
from onnx_subprune.calibration.streaming.settings import Running
from onnx_subprune.calibration.streaming.target import Original
from onnx_subprune.graph.network import Network


class Counting:
    """An executor that runs models here and keeps the bytes of every answer."""

    def __init__(self) -> None:
        self.answers: list[int] = []

    def begin(
        self, network: Network, data: Calibration, running: Running, memory: int, *, original: Original | None
    ) -> Lockstep:
        found = Local().begin(network, data, running, memory, original=original)
        assert isinstance(found, Streams)
        plain = found.collect

        def collect(request: Request) -> Collected:
            found = plain(request)
            self.answers.append(len(pickle.dumps(found)))
            return found

        found.collect = collect  # type: ignore[method-assign]
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--samples", type=int, default=256)
    options = parser.parse_args()
    few = Resources(samples=options.samples, threads=1)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "moments"
        collect(options.model, options.data, path, resources=Resources(samples=64, threads=1))
        start = time.process_time()
        collect(options.model, options.data, path, resources=few, force=True)
        seconds = (time.process_time() - start) / options.samples
        print(f"collect: {1 / seconds:.0f} samples a second and core, file {path.stat().st_size / 1e6:.1f} MB")
    for formulation in (Layerwise(), Asymmetric()):
        counting = Counting()
        start = time.process_time()
        prune(
            options.model, options.data, budget=Channels(0.5), formulation=formulation, resources=few, executor=counting
        )
        seconds = (time.process_time() - start) / options.samples
        print(
            f"prune {type(formulation).__name__}: {len(counting.answers)} rounds, {sum(counting.answers) / 1e6:.1f} MB from each shard, "
            f"{1 / seconds:.0f} samples a second and core, selection and refit included"
        )


if __name__ == "__main__":
    main()
