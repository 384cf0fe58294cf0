"""What every test of a network needs: supports, inputs, and its cost measured."""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import ModelProto

from onnx_subprune._typing import Array
from onnx_subprune.graph.channels import ChannelGraph
from onnx_subprune.graph.costs.costs import costs
from onnx_subprune.graph.network import Network, load
from onnx_subprune.graph.tracing.trace import trace


def supports_of(graph: ChannelGraph, seed: int, *, share: float | None = None) -> Mapping[str, list[int]]:
    """Return supports drawn at random: `share` of each group, or a share of its own for each; equally many of every cell."""
    rng = np.random.default_rng(seed)
    supports = {}
    for group in graph.groups:
        cell = group.width // group.step
        count = int(rng.integers(1, cell + 1)) if share is None else max(1, round(cell * share))
        chosen = [rng.choice(np.flatnonzero(group.cells == c), count, replace=False) for c in range(group.step)]
        supports[group.name] = sorted(np.concatenate(chosen).tolist())
    return supports


def feeds_of(network: Network, batch: int, seed: int, free: int = 16) -> dict[str, Array]:
    """Return inputs drawn at random; open dimensions are `batch` on the first axis and `free` elsewhere."""
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for value in network.inputs:
        kind = value.type.tensor_type
        shape = [d.dim_value or (free if axis else batch) for axis, d in enumerate(kind.shape.dim)]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        drawn = rng.standard_normal(shape)
        feeds[value.name] = (drawn > 0 if dtype == np.bool_ else drawn).astype(dtype)
    return feeds


def weigh(
    network: Network, graph: ChannelGraph, supports: Mapping[str, list[int]], small: ModelProto
) -> tuple[tuple[float, float], ...]:
    """Return (parameters, multiply-accumulates) as the cost functions of `graph` give them and as measured on the sliced model."""
    widths = {name: len(support) for name, support in supports.items()}
    known = costs(network, graph)
    sliced = load(small)
    measured = costs(sliced, trace(sliced))
    return (
        (round(known.params(widths), 3), round(known.macs(widths), 3)),
        (round(measured.params({}), 3), round(measured.macs({}), 3)),
    )
