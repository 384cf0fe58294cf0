"""What tensors of sizes are put together of."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import key_of


def joined_parts(
    network: Network, shapes: Mapping[str, tuple[int, ...]], computed: str, flags: NDArray[np.bool_]
) -> list[tuple[str, int]] | None:
    """Return what a Concat made a tensor of, with the lengths; "" for what is not computed, and None where one is so in part, or nothing is joined."""
    index = network.producer.get(computed, -1)
    if index < 0 or key_of(network.nodes[index]) != "Concat":
        return None
    found, start = [], 0
    for name in network.nodes[index].input:
        shape = shapes.get(name)
        shape = network.array(name).shape if shape is None and name in network.constants else shape
        if shape is None or len(shape) != 1:
            return None
        inside = flags[start : start + shape[0]]
        if np.any(inside) and not np.all(inside):
            return None
        found.append((name if np.any(inside) else "", shape[0]))
        start += shape[0]
    return found if start == len(flags) else None
