"""The model without the channels that are dropped before the walk begins: that walks on what is left, in less time and memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_subprune._typing import Array, Int64
from onnx_subprune.calibration.streaming.target import Left, Original
from onnx_subprune.graph.channels import Axis, ChannelGraph, Use
from onnx_subprune.graph.contractions.ends import empty_bias
from onnx_subprune.graph.formats import model_bytes
from onnx_subprune.graph.network import LARGE, Network
from onnx_subprune.graph.surgery.slicing import kept_positions, slice_constant
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.graph.tracing.trace import trace


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Presliced:
    """See the module. network, graph: what is left. lost: the weights of contractions that have lost inputs, and what counts channels in statistics."""

    network: Network
    graph: ChannelGraph
    original: Original
    lost: frozenset[Use]
    whole_graph: ChannelGraph
    kept: Mapping[Axis, Int64]

    def whole(self, use: Use, value: Array) -> Array:
        """Return a constant as it is in the original, zero where channels have been dropped."""
        network = self.original.network
        inputs = network.node(use.node).input
        name = inputs[use.slot] if use.slot < len(inputs) else ""
        contractions = self.whole_graph.contractions
        contraction = next(
            (item for item in contractions if use == (item.weight if name else item.new_bias or empty_bias(item))), None
        )
        if name:
            shape: tuple[int, ...] = network.array(name).shape
        else:
            assert contraction is not None, "a new constant is the bias of a contraction"
            shape = (self.whole_graph.observation.shapes[contraction.output.tensor][contraction.output.index],)
        found = np.zeros(shape, value.dtype)
        places = np.arange(found.size).reshape(shape)
        left = slice_constant(places, use, name, contraction, self.kept)
        assert left.size == value.size, f"{use} has {value.size} elements, {left.size} are left"
        found.reshape(-1)[left.ravel()] = value.ravel()
        return found


def presliced(network: Network, graph: ChannelGraph, supports: Mapping[str, Sequence[int]]) -> Presliced | None:
    """Return the model with these channels alone; None if there is nothing to gain, or it would not be the same one otherwise."""
    if not supports or model_bytes(network.proto) > LARGE:
        return None
    kept = kept_positions(graph, supports)
    left: dict[str, Left] = {}
    for axis, positions in kept.items():
        if axis.use is None:
            if axis.tensor in left:
                return None
            left[axis.tensor] = (axis.index, positions)
    smaller = Network(apply(network, graph, Plan(supports=supports)), network.folder)
    found = trace(smaller, example=graph.observation.example)
    widths = {group.name: group.width for group in found.groups}
    expected = {group.name: len(supports.get(group.name, range(group.width))) for group in graph.groups}
    vanished = supports.keys() - widths.keys()  # nothing is left to choose there
    same = widths == {name: width for name, width in expected.items() if name not in vanished}
    places = _places(network, smaller)
    if places is None or not same or _reading(found) != _reading(graph):
        return None
    return Presliced(
        network=smaller,
        graph=found,
        original=Original(
            network=network,
            left=left,
            places=places,
            rows={item.weight: kept[item.columns] for item in graph.contractions if item.columns in kept},
        ),
        lost=frozenset(
            (
                *(item.weight for item in graph.contractions if item.rows in kept),
                *(axis.use for axis in kept if axis.use in graph.counted),
            )
        ),
        whole_graph=graph,
        kept=kept,
    )


def _places(network: Network, smaller: Network) -> tuple[int, ...] | None:
    """Return where `network` is when `smaller` is at each of its positions; None if they do not go the same way."""
    places = [0]
    for label in smaller.labels:
        place = network.position.get(label, places[-1] - 1) + 1
        if place < places[-1]:
            return None
        places.append(place)
    places[-1] = len(network.nodes)
    return tuple(places)


def _reading(graph: ChannelGraph) -> list[tuple[Use, str]]:
    return [(item.weight, item.input.tensor) for item in graph.contractions]
