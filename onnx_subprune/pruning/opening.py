"""The first steps of every verb that is given data: the data are opened, and the model is traced at their sizes."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from onnx_subprune._typing import Array
from onnx_subprune.calibration.data.constants import Constant, constant_values
from onnx_subprune.calibration.data.reading import Reading, open_data
from onnx_subprune.calibration.data.samples import Calibration, chunk_size
from onnx_subprune.calibration.data.sources import Source
from onnx_subprune.errors import DataError, ModelError, SubpruneError
from onnx_subprune.graph.channels import ChannelGraph
from onnx_subprune.graph.network import Network, check_floating, ports
from onnx_subprune.graph.observing import FOLDED
from onnx_subprune.graph.operators import key_of
from onnx_subprune.graph.rules import RULES
from onnx_subprune.graph.rules.vocabulary import Rule
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.resources import Resources, memory_of
from onnx_subprune.runtime.session import Runnable

DRAWING = frozenset(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
)
"""Operators that draw random numbers."""
NOISE = 1e-3
"""Outputs that differ from run to run by more than this share of the largest number are no rounding."""


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
    try:
        graph = trace(network, rules=rules, example=calibration.example(), rows=rows)
    except DataError:
        batch = _folded(reading.model, calibration)
        if batch is None:
            raise
        left = 0 if rest is None else rest.samples // batch
        calibration, rest = (
            in_batches(calibration, batch),
            in_batches(rest, batch) if rest is not None and left else None,
        )
        graph = trace(network, rules=rules, example=calibration.example(), rows=rows)
    if calibration.example().samples > graph.observation.batch:  # it runs on one sample at a time, whatever it declares
        calibration, rest = one_by_one(calibration), None if rest is None else one_by_one(rest)
    return Opened(calibration=calibration, rest=rest, graph=graph)


def check_repeats(network: Network, data: Calibration) -> None:
    """Raise ModelError where what the model puts out hangs on numbers that it draws at random: nothing could be compared with anything then."""
    drawing = [label for label, node in zip(network.labels, network.nodes, strict=True) if key_of(node) in DRAWING]
    if not drawing:
        return
    session, feeds = Runnable(network.given, network.folder).session(threads=1), data.feeds(data.fixed or 1)
    one, other = session.run(feeds), session.run(feeds)
    moved = [name for name, value in one.items() if not _alike(value, other[name])]
    if moved:
        kind = key_of(network.node(drawing[0]))
        raise ModelError(
            f"the model puts out something else in every run, since it draws random numbers ({drawing[0]}, {kind}), so that nothing could be compared: "
            f"feed the scale of its noise, if that is an input, a zero (--set noise_scale=0), or export it without noise"
        )


def _alike(one: Array, other: Array) -> bool:
    if one.shape != other.shape or one.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    limit = NOISE * float(np.max(np.abs(one), initial=0.0))
    return bool(np.allclose(one, other, rtol=0.0, atol=limit, equal_nan=True))


def one_by_one(data: Calibration) -> Calibration:
    """Return `data` for a model that runs on one sample at a time."""
    return in_batches(data, 1)


def in_batches(data: Calibration, batch: int) -> Calibration:
    """Return `data` for a model that takes so many samples at a time; those that do not fill a batch are left out."""
    return replace(data.take(data.samples // batch * batch), fixed=batch, chunk=chunk_size(data.samples, batch))


def _folded(model: Runnable | None, data: Calibration) -> int | None:
    """The number of samples that the model takes for one, as a picture and its mirror images; None where it does not run on a few at once either."""
    if model is None or data.runs or data.fixed is not None:
        return None
    session = model.session(threads=1)
    for batch in FOLDED:
        if data.samples >= batch:
            with suppress(SubpruneError):
                session.run(data.feeds(batch))
                return batch
    return None
