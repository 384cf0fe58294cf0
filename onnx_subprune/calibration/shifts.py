"""More samples for layers that have few: images moved by a pixel (data augmentation by translation).

What a layer should put out for a moved image the original model says, so no labels are needed. Where most of the weights lie in
layers that a few hundred samples hardly determine (small networks of dense layers behind convolutions), moved images take some of the noise of a
refit away. Elsewhere they cost time and bring nothing, or take the place of better rows.
"""

from dataclasses import replace
from math import prod

import numpy as np

from onnx_subprune._typing import Array
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.moments.limits import oversized
from onnx_subprune.graph.channels import ChannelGraph, Contraction
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import key_of
from onnx_subprune.graph.rules.elementwise import UNARY

MOVES = ((1, 0), (-1, 0), (0, 1), (0, -1))
"""Pixels down and to the right, one copy each."""
SCARCE = 4
"""A layer with fewer rows a column than this has few samples."""
AFFORDED = 10**11
"""Most multiply-accumulates of a pass over all copies that are made unasked: about a second. VGG-11 on CIFAR, beyond it, takes twice the time with
copies, and its held-out divergence falls by 7 %."""
POINTWISE = frozenset((*UNARY, "Cast", "Clip", "BatchNormalization"))
JOINING = frozenset(("Add", "Sub", "Mul", "Div"))


def augmented(
    data: Calibration, network: Network, graph: ChannelGraph, macs: float, *, shifts: bool | None
) -> Calibration:
    """Return `data` with a copy of its images for each of `MOVES`; as it is if the model reads none.

    macs: of one sample. shifts: True or False as the user says; None: where samples are few and a pass stays short.
    """
    names = () if data.runs else tuple(name for name in images(network) if name not in data.shared)
    if shifts is None:
        copies = 1 + len(MOVES)
        shifts = macs * data.samples * copies <= AFFORDED and few_samples(network, graph, data.samples, copies)
    return shifted(data, names) if shifts and names else data


def few_samples(network: Network, graph: ChannelGraph, samples: int, copies: int) -> bool:
    """True if half of the weights lie in layers that have few rows, and so many copies are not too many for a layer."""
    few, every = 0, 0
    for contraction in graph.contractions:
        if oversized(graph, network, contraction, samples * copies) and not oversized(
            graph, network, contraction, samples
        ):
            return False
        rows, columns, size = rows_and_columns(network, graph, contraction, samples)
        every += size
        few += size if rows < SCARCE * columns else 0
    return 2 * few >= every > 0


def images(network: Network) -> tuple[str, ...]:
    """Return the inputs (N, C, H, W) that nothing but convolutions reads, and pointwise operators on the way there."""
    found = []
    for value in network.inputs:
        kind = value.type.tensor_type
        if len(kind.shape.dim) == 4 and _convolved(network, value.name):
            found.append(value.name)
    return tuple(found)


def shifted(data: Calibration, names: tuple[str, ...]) -> Calibration:
    """Return `data` and a copy of it for each of `MOVES`, with the images `names` moved, their borders repeated.

    Of an odd chunk at the end there are no copies: a copy lies in the same half of the chunks as its original, so that what is fitted on one half is
    held against images that it has not seen.
    """
    even = data.samples // (2 * data.chunk) * (2 * data.chunk)
    arrays = {}
    for name in data.arrays:
        array = data.all_of(name)
        first = array[:even]
        copies = [moved(first, *move) if name in names else first for move in MOVES]
        arrays[name] = np.concatenate([first, *copies, array[even:]])
    return replace(data, arrays=arrays, rows=None)


def moved(batch: Array, down: int, right: int) -> Array:
    """Return images (N, C, H, W) moved by so many pixels; what comes in repeats the border."""
    height, width = batch.shape[2:]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return batch[:, :, rows[:, None], columns]


def rows_and_columns(
    network: Network, graph: ChannelGraph, contraction: Contraction, samples: int
) -> tuple[int, int, int]:
    """Return the rows, columns and weights of a contraction."""
    weight = network.initializers.get(contraction.weight_tensor)
    dims = tuple(weight.dims) if weight is not None else network.array(contraction.weight_tensor).shape
    rows = samples * graph.observation.positions(contraction.output.tensor, contraction.output.index)
    return rows, prod(dims) // max(1, dims[contraction.columns.index]), prod(dims)


def _convolved(network: Network, tensor: str) -> bool:
    readers = network.readers.get(tensor, ())
    if not readers or tensor in network.outputs:
        return False
    for index, slot in readers:
        if slot < 0:
            return False
        node = network.nodes[index]
        if key_of(node) == "Conv" and slot == 0:
            continue
        joined = key_of(node) in JOINING and node.input[1 - slot] in network.constants
        if not joined and not (key_of(node) in POINTWISE and slot == 0):
            return False
        if not _convolved(network, node.output[0]):
            return False
    return True
