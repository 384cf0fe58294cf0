"""Moments of the original model at many contractions, in one run."""

from collections.abc import Iterator, Sequence

from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.moments.halves import Halves
from onnx_subprune.calibration.streaming.executor import Executor, Local, active
from onnx_subprune.calibration.streaming.request import Request, Sampling
from onnx_subprune.calibration.streaming.settings import Running
from onnx_subprune.graph.channels import Contraction
from onnx_subprune.graph.contractions.reading import kernel_of
from onnx_subprune.graph.network import Network

LOCAL = Local()

SURVEYED = 4
"""A survey for the widths draws so many times the positions of the walk: what is allocated decides for the whole model."""


def survey(
    network: Network,
    contractions: Sequence[Contraction],
    data: Calibration,
    running: Running,
    memory: int,
    executor: Executor = LOCAL,
    *,
    times: int | None = None,
) -> Iterator[tuple[Contraction, Halves]]:
    """Yield the moments of the original model at each of `contractions`, in topological order; the target is input times weights.

    times: of drawn output positions, so many times as many as `running` says; None for all.
    """
    with executor.begin(network, data, running, memory, original=None) as run:
        for contraction in sorted(contractions, key=lambda item: network.position[item.node]):
            run.advance(network.position[contraction.node])
            kernel, weights = kernel_of(network, contraction)
            positions = times * running.positions_of(data.samples, weights.shape[1]) if times else None
            source, sampling = contraction.input.tensor, Sampling(positions=positions)
            request = Request(weight=contraction.weight, kernel=kernel, input=source, sampling=sampling)
            halves = run.collect(request).moments().with_target(weights)
            yield contraction, active(run, request, halves)
