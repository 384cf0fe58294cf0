"""Networks of which some channels are dead: a prune that drops those, and nothing else, loses nothing."""

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto

from onnx_subprune._typing import Array, Int64
from onnx_subprune.allocation import proportional
from onnx_subprune.graph.channels import ChannelGraph, ChannelGroup, Contraction, Slice, Use
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.surgery.masking import zero_rows
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.pruning.budgets.rounding import PLAIN
from onnx_subprune.runtime.observing import observe

Dead = Mapping[str, Int64]
"""By group, channels that are dead."""


def doomed(graph: ChannelGraph, share: float = 0.5, seed: int = 0) -> Dead:
    """Return of every group, at random, as many channels as a prune to `share` of the channels drops; equally many of every cell."""
    rng = np.random.default_rng(seed)
    left = proportional(PLAIN.rooms(graph), share)
    found = {}
    for group in graph.groups:
        each = (group.width - left[group.name]) // group.step
        cells = [rng.permutation(np.flatnonzero(group.cells == cell))[:each] for cell in range(group.step)]
        found[group.name] = np.sort(np.concatenate(cells))
    return found


def killed(network: Network, graph: ChannelGraph, dead: Dead, feeds: Mapping[str, Array]) -> ModelProto:
    """Return the model with the channels `dead` of each group zero: all that makes them is.

    Where something in between does not map 0 to 0, the weights that read them are zero too.
    """
    values: dict[Use, Array] = {}
    rows = {contraction.rows for contraction in graph.contractions}
    columns = {contraction.columns: contraction for contraction in graph.contractions}
    for group in graph.groups:
        for part in group.slices:
            use = part.axis.use
            counts = use in graph.counted  # a normalisation still takes its statistics of all
            if use is not None and not counts and part.axis not in rows and network.node(use.node).op_type != "Div":
                value = _own(network, use, values)
                if value.dtype.kind == "f":
                    _mute(value, part, dead[group.name], columns.get(part.axis))
    silent = apply(network, graph, Plan(weights=values))
    read = {consumer.contraction.input.tensor for group in graph.groups for consumer in group.consumers}
    made = sorted(read & set(network.producer))
    seen = observe(silent, feeds, made, network.folder) if made else {}
    for group in graph.groups:
        if _speaks(group, dead[group.name], seen):
            for consumer in group.consumers:
                value = _own(network, consumer.contraction.weight, values)
                zero_rows(value, consumer.contraction, consumer.positions[dead[group.name]].ravel())
    return apply(network, graph, Plan(weights=values))


def _mute(value: Array, part: Slice, dead: Int64, contraction: Contraction | None) -> None:
    places = part.positions[dead].ravel()
    if contraction is None or contraction.op != "ConvTranspose":
        np.moveaxis(value, part.axis.index, 0)[places] = 0
        return
    depth, each = (
        value.shape[1],
        len(value) // contraction.groups,
    )  # outputs are counted over the groups, which inputs are cut into
    for place in places.tolist():
        value[place // depth * each : (place // depth + 1) * each, place % depth] = 0


def _own(network: Network, use: Use, values: dict[Use, Array]) -> Array:
    if use not in values:
        values[use] = np.array(network.array(network.node(use.node).input[use.slot]))
    return values[use]


def _speaks(group: ChannelGroup, dead: Int64, seen: Mapping[str, Array]) -> bool:
    """True if a dead channel is not zero where it is read."""
    for consumer in group.consumers:
        axis = consumer.contraction.input
        places = [part.positions[dead].ravel() for part in group.slices if part.axis == axis]
        if not places or any(np.any(np.take(seen[axis.tensor], place, axis=axis.index)) for place in places):
            return True
    return False


def apart(reference: Mapping[str, Array], found: Mapping[str, Array]) -> float:
    """Return the largest difference over the outputs, relative to the largest value of each; infinite for other integers, shapes or NaN."""
    worst = 0.0
    for name, wanted in reference.items():
        value = found[name]
        if wanted.dtype.kind != "f" or wanted.shape != value.shape:
            worst = worst if np.array_equal(wanted, value) else np.inf
        elif wanted.size:
            difference = np.abs(wanted.astype(np.float64) - value.astype(np.float64)).max()
            worst = max(worst, float(difference) / max(float(np.abs(wanted).max()), 1e-30))
        if not np.isfinite(value.astype(np.float64)).all():
            worst = np.inf
    return worst
