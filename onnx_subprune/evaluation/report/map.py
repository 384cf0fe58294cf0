"""The map of a network: its layers in order, each as long as its share of the work, coloured by what can go."""

from dataclasses import dataclass
from typing import Literal

from onnx_subprune.graph.channels import ChannelGraph
from onnx_subprune.graph.costs.layers import Layers

LEAST = 1e-3
"""Layers with less than this share of the multiply-accumulates and of the parameters are left out."""


@dataclass(frozen=True, slots=True)
class Block:
    """A layer on the map. share: of the multiply-accumulates, or of the parameters where there are none of the former."""

    node: str
    op: str
    share: float
    state: Literal["own", "read", "stays"]
    words: str


def blocks(graph: ChannelGraph, found: Layers) -> tuple[Block, ...]:
    """Return the layers of a model that count, in topological order; "own": its own outputs can go, "read": only what it reads."""
    own = {name for group in graph.groups for name in group.producers}
    result = []
    for item in found.items:
        macs, params = item.macs / max(found.macs, 1e-12), item.params / max(found.params, 1)
        if max(macs, params) < LEAST:
            continue
        if item.reason is not None:
            state, why = "stays", f"stays: {item.reason}"
        elif item.node in own:
            state, why = "own", "its own channels can go"
        else:
            state, why = "read", "channels that it reads can go"
        text = f"{item.node} ({item.op}): {100 * macs:.1f} % of the multiply-accumulates, {100 * params:.1f} % of the parameters; {why}"
        result.append(Block(item.node, item.op, macs if found.macs else params, state, text))  # type: ignore[arg-type]  # one of three
    return tuple(result)
