"""How long each layer takes before and after: why a smaller model is faster, or is not."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from onnx_subprune._typing import Array
from onnx_subprune.graph.channels import ChannelGraph
from onnx_subprune.graph.network import Network
from onnx_subprune.runtime.profiling import NodeTime, node_times
from onnx_subprune.runtime.session import Runnable

SHOWN = 3
"""Layers that are named where a model is not faster."""
BLOCKED = "_nchwc"
"""What onnxruntime appends to the name of a tensor for that of a node in its own layout."""
FUSED = "fused "
"""What it puts before the name of a convolution with an activation."""


@dataclass(frozen=True, slots=True)
class LayerTime:
    """Median milliseconds of a layer, with what is fused into it, before and after."""

    name: str
    before: float
    after: float


def layer_times(
    network: Network, graph: ChannelGraph, smaller: Runnable, feeds: Mapping[str, Array], threads: int | None = None
) -> tuple[LayerTime, ...]:
    """Return the time of every contraction of `graph` in `network` and in `smaller`, its pruned self, and of all that is beside them.

    None where the providers of `smaller` run the models as one piece.
    """
    layers = {contraction.node for contraction in graph.contractions}
    sums = [
        _by_layer(network, layers, node_times(model, feeds, threads=threads))
        for model in (Runnable(network.given, network.folder, smaller.providers), smaller)
    ]
    names = [label for label in network.labels if label in layers and (label in sums[0] or label in sums[1])]
    rows = [LayerTime(name, sums[0].get(name, 0.0), sums[1].get(name, 0.0)) for name in names]
    if not rows:
        return ()
    return (*rows, LayerTime("beside the layers", sums[0].get("", 0.0), sums[1].get("", 0.0)))


def slower_because(layers: Sequence[LayerTime]) -> str:
    """Return which layers take most of the time that was not gained, for a reader."""
    total = sum(layer.before for layer in layers)
    lost = sorted(layers, key=lambda layer: layer.before - layer.after)[:SHOWN]
    worse = [layer for layer in lost if layer.after > layer.before]
    if worse:
        return "slower: " + ", ".join(f"{item.name} ({item.before:.3g} to {item.after:.3g} ms)" for item in worse)
    slow = sorted(layers, key=lambda layer: -layer.after)[:SHOWN]
    shares = ", ".join(f"{item.name} ({item.after:.3g} of {total:.3g} ms)" for item in slow)
    return f"most of the time is in {shares}"


def _by_layer(network: Network, layers: Collection[str], times: tuple[NodeTime, ...]) -> dict[str, float]:
    """Milliseconds by label; "" for what belongs to no layer."""
    found: dict[str, float] = {}
    for item in times:
        label = _layer_of(network, layers, item.name)
        found[label] = found.get(label, 0.0) + item.milliseconds
    return found


def _layer_of(network: Network, layers: Collection[str], name: str) -> str:
    """The layer that a node of the optimized model is made of, "" for none.

    A node in onnxruntime's own layout is called after the tensor that it makes, which is that of the last operator fused into it.
    """
    plain = name.removesuffix(BLOCKED).removeprefix(FUSED)
    if plain in layers:
        return plain
    tensor = plain
    while tensor in network.producer:
        place = network.producer[tensor]
        if network.labels[place] in layers:
            return network.labels[place]
        read = [item for item in network.nodes[place].input if item not in network.constants]
        if name == plain or not read:
            break
        tensor = read[0]
    return ""
