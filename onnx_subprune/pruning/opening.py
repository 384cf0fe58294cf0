"""The first steps of every verb that is given data: the data are opened, and the model is traced at their sizes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from onnx_subprune.calibration.data.constants import Constant, constant_values
from onnx_subprune.calibration.data.reading import Reading, open_data
from onnx_subprune.calibration.data.samples import Calibration, chunk_size
from onnx_subprune.calibration.data.sources import Source
from onnx_subprune.graph.channels import ChannelGraph
from onnx_subprune.graph.network import Network, check_floating, ports
from onnx_subprune.graph.rules import RULES
from onnx_subprune.graph.rules.vocabulary import Rule
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.resources import Resources, memory_of
from onnx_subprune.runtime.session import Runnable


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Opened:
    """Calibration data, the rest where some are left, and the graph at their sizes."""

    calibration: Calibration
    rest: Calibration | None
    graph: ChannelGraph


def reading_of(
    network: Network, constants: Mapping[str, Constant], samples: int | None = None, memory: int | None = None
) -> Reading:
    """Return how the data of `network` are read. memory: see `Resources`."""
    values = constant_values(constants, ports(network))
    most = memory_of(Resources(memory=memory))
    return Reading(samples=samples, constants=values, model=Runnable(network.given, network.folder), memory=most)


def opened(
    network: Network,
    data: Source,
    *,
    samples: int | None = None,
    memory: int | None = None,
    constants: Mapping[str, Constant],
    rules: Mapping[str, Rule] = RULES,
    rows: bool = True,
    labelled: bool = False,
) -> Opened:
    """Open the data and trace `network` at their sizes; see `trace`. labelled: there are labels for all samples. Raises DataError and ModelError."""
    check_floating(network)
    reading = replace(reading_of(network, constants, samples, memory), labelled=labelled)
    calibration, rest = open_data(data, ports(network), reading=reading)
    graph = trace(network, rules=rules, example=calibration.example(), rows=rows)
    if calibration.example().samples > graph.observation.batch:  # it runs on one sample at a time, whatever it declares
        calibration, rest = one_by_one(calibration), None if rest is None else one_by_one(rest)
    return Opened(calibration=calibration, rest=rest, graph=graph)


def one_by_one(data: Calibration) -> Calibration:
    """Return `data` for a model that runs on one sample at a time."""
    return replace(data, fixed=1, chunk=chunk_size(data.samples, 1))
