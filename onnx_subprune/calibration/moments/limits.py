"""Layers with too many inputs to take their moments."""

import numpy as np

from onnx_subprune.graph.channels import ChannelGraph, Contraction
from onnx_subprune.graph.contractions.reading import kernel_at
from onnx_subprune.graph.network import Network

COLUMNS = 12_288
"""Most inputs that a layer may sum over to be refitted, where its Gram is needed: that alone takes 1.2 GB, and a few are alive at once."""


def oversized(graph: ChannelGraph, network: Network, contraction: Contraction, samples: int | None) -> bool:
    """True if a contraction sums over too many inputs to take its moments, and `samples` (None: unknown) give too many rows to keep."""
    columns = _columns(network, contraction)
    if columns <= COLUMNS:
        return False
    shape = graph.observation.shapes[contraction.input.tensor]
    kernel = kernel_at(
        network.node(contraction.node), _shape(network, contraction.weight_tensor), contraction.weight.slot
    )
    rows = int(np.prod(shape[:-1])) // graph.observation.batch
    return samples is None or not kernel.wide(columns) or samples * rows >= columns


def _columns(network: Network, contraction: Contraction) -> int:
    shape = _shape(network, contraction.weight_tensor)
    taps = int(np.prod(shape[2:])) if contraction.op in ("Conv", "ConvTranspose") else 1
    return int(shape[contraction.rows.index]) // (contraction.groups if contraction.op == "ConvTranspose" else 1) * taps


def _shape(network: Network, weight: str) -> tuple[int, ...]:
    tensor = network.initializers.get(weight)
    return tuple(tensor.dims) if tensor is not None else network.array(weight).shape
