"""The model that a plan describes, with nothing cut: dropped channels are zeroed in the weights that read them."""

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from onnx import ModelProto

from onnx_subprune._typing import Array, Int64
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.streaming.settings import Running
from onnx_subprune.calibration.streaming.stream import Stream
from onnx_subprune.graph.channels import ChannelGraph, Contraction, Use
from onnx_subprune.graph.network import LARGE, Network
from onnx_subprune.graph.statistics import statistics_of
from onnx_subprune.graph.surgery.masking import zero_channels, zero_rows
from onnx_subprune.graph.surgery.slicing import kept_positions
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.runtime.spill import Store


def masked(network: Network, graph: ChannelGraph, plan: Plan) -> ModelProto:
    """Return the model of `plan` with dropped channels zeroed in the weights that read them, and nothing cut."""
    plan, dropped = _silenced(network, graph, plan), _dropped(graph, plan)
    weights = {
        use: _masked_weight(network, plan, use, dropped.get(use, ()))
        for use in {**dict.fromkeys(plan.weights), **dropped}
    }
    return apply(network, graph, Plan(weights=weights))


def _silenced(network: Network, graph: ChannelGraph, plan: Plan) -> Plan:
    """The plan with zeros in what makes the dropped channels that products of activations sum over, biases that are new included.

    Statistics over channels are those of the ones that stay.
    """
    own = statistics_of(network, kept_positions(graph, plan.supports))
    for group in graph.groups:
        if group.product is None or group.name not in plan.supports:
            continue
        gone = np.setdiff1d(np.arange(group.width), np.asarray(plan.supports[group.name], np.int64))
        uses = [part.axis.use for part in group.silencers if part.axis.use is not None]
        own.update({use: plan.weights[use] for use in uses if use not in own and use in plan.weights})
        zero_channels(network, group, gone, own)
        outputs = {part.axis: part.positions for part in group.slices}
        for item in graph.contractions:
            bias = item.new_bias
            if item.weight in uses and bias is not None and bias in plan.weights:
                own[bias] = np.array(own.get(bias, plan.weights[bias]))
                own[bias][outputs[item.output][gone].ravel()] = 0
    return replace(plan, weights=ChainMap(own, plan.weights)) if own else plan  # type: ignore[arg-type]


Rows = tuple[Contraction, Int64]
"""Rows of a contraction's weight that read dropped channels."""


def _dropped(graph: ChannelGraph, plan: Plan) -> dict[Use, list[Rows]]:
    found: dict[Use, list[Rows]] = {}
    for group in graph.groups:
        if group.name in plan.supports:
            gone = np.setdiff1d(np.arange(group.width), np.asarray(plan.supports[group.name], np.int64))
            for consumer in group.consumers:
                rows = consumer.positions[gone].ravel()
                found.setdefault(consumer.contraction.weight, []).append((consumer.contraction, rows))
    return found


def _masked_weight(network: Network, plan: Plan, use: Use, dropped: Sequence[Rows]) -> Array:
    value = plan.weights.get(use)
    if not dropped:
        assert value is not None, "nothing is new there"
        return value
    masked = np.array(network.array(dropped[0][0].weight_tensor) if value is None else value)
    for contraction, rows in dropped:
        zero_rows(masked, contraction, rows)
    return masked


def masked_in_steps(
    network: Network, graph: ChannelGraph, plan: Plan, feeds: Mapping[str, Array], names: Sequence[str]
) -> Mapping[str, Array]:
    """Return the tensors `names` and the outputs of the masked model, from one changed node to the next, with no more weights in memory than one step has."""
    plan, dropped = _silenced(network, graph, plan), _dropped(graph, plan)
    uses: dict[int, list[Use]] = {}
    for use in {**dict.fromkeys(plan.weights), **dict.fromkeys(dropped)}:
        uses.setdefault(network.position[use.node], []).append(use)
    whole = Calibration(arrays={name: array[None] for name, array in feeds.items()}, chunk=1, runs=True)
    stream = Stream(network, whole, Store(LARGE), Running())
    found: dict[str, Array] = {}
    starts = sorted({0, *uses})  # what lies in front of the first change is asked for too
    for position, end in zip(starts, [*starts[1:], len(network.nodes)], strict=True):
        stream.advance(position)
        for use in uses.get(position, ()):
            stream.override(use, _masked_weight(network, plan, use, dropped.get(use, ())))
        here = [name for name in names if position <= network.producer[name] < end]
        if here:
            found.update(next(iter(stream.read(here))))
    outputs = [name for name in network.outputs if name not in network.constants]
    return {**found, **next(iter(stream.read(outputs)))}
