"""More samples for layers that have few: images moved by a pixel, or mirrored (data augmentation).

What a layer should put out for such an image the original model says, so no labels are needed. Where most of the weights lie in
layers that a few hundred samples hardly determine (small networks of dense layers behind convolutions), moved images take some of the noise of a
refit away. Elsewhere they cost time and bring nothing, or take the place of better rows. Mirrored ones say more, where the original hardly sees the
difference, and are but one copy: networks for large images have them (EfficientNet-Lite0 at 0.8 of its multiply-accumulates, 256 photographs).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod, sqrt

import numpy as np

from onnx_subprune._typing import Array
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.moments.limits import oversized
from onnx_subprune.graph.channels import ChannelGraph, Contraction
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import key_of
from onnx_subprune.graph.rules.elementwise import UNARY

Move = tuple[int, int, bool]
"""Pixels down and to the right, and whether an image is mirrored."""
MOVES: tuple[Move, ...] = ((1, 0, False), (-1, 0, False), (0, 1, False), (0, -1, False))
"""One copy each."""
MIRRORED: Move = (0, 0, True)
ALIKE = 0.25
"""Mirrored images are as good as the others where the original hardly sees the difference: less than this share of what its outputs vary by, from sample
to sample (EfficientNet-Lite0 0.07, ResNet-56 0.09; a network that tells which way a page is turned 0.8)."""
SCARCE = 4
"""A layer with fewer rows a column than this has few samples."""
SCARCE_ALIKE = 2
"""The same where positions of an image count as the square root of their number: EfficientNet-Lite0 has 1.4 with 256 photographs; `resnet_fashion`, which
gains nothing by mirrored images, 2.7 with 256."""
AFFORDED = 10**11
"""Most multiply-accumulates of a pass over all copies that are made unasked: about a second. VGG-11 on CIFAR, beyond it, takes twice the time with
copies, and its held-out divergence falls by 7 %."""
AFFORDED_MIRRORED = 3 * 10**11
"""The same for mirrored copies."""
LARGE = 64
"""Pixels from which on, in height and width, images are large: networks for smaller ones gain nothing by mirrored copies (CIFAR-10, Fashion-MNIST, 64 to 512
samples)."""
PASSING = frozenset((*UNARY, "Cast", "Clip", "BatchNormalization", "Pad"))
JOINING = frozenset(("Add", "Sub", "Mul", "Div"))


@dataclass(slots=True, eq=False)
class Copies:
    """Adds copies to samples: the same kind each time, which the first samples decide.

    macs: of one sample. shifts: True or False as the user says; None: where samples are few and a pass stays short. alike: whether the original
    hardly sees that images are mirrored; asked only where that counts. moves: those of the copies; None until samples have decided.
    """

    network: Network
    graph: ChannelGraph
    macs: float
    shifts: bool | None
    alike: Callable[[tuple[str, ...]], bool]
    moves: tuple[Move, ...] | None = field(default=None, init=False)

    def __call__(self, data: Calibration) -> Calibration:
        """Return `data` with its copies; as it is if the model reads no images, or there are to be none."""
        names = () if data.runs else tuple(name for name in images(self.network) if name not in data.shared)
        if self.moves is None:
            self.moves = self._moves(data, names) if names else ()
        return shifted(data, names, self.moves) if names and self.moves else data

    def _moves(self, data: Calibration, names: tuple[str, ...]) -> tuple[Move, ...]:
        if self.shifts is not None:
            return MOVES if self.shifts else ()
        work = self.macs * data.samples
        if work * (1 + len(MOVES)) <= AFFORDED and few_samples(self.network, self.graph, data.samples, 1 + len(MOVES)):
            return MOVES
        large = min(min(data.all_of(name).shape[2:]) for name in names) >= LARGE
        few = large and few_samples(self.network, self.graph, data.samples, 2, alike=True)
        return (MIRRORED,) if few and work * 2 <= AFFORDED_MIRRORED and self.alike(names) else ()


def few_samples(network: Network, graph: ChannelGraph, samples: int, copies: int, *, alike: bool = False) -> bool:
    """True if half of the weights lie in layers that have few rows, and so many copies are not too many for a layer.

    alike: positions of an image are like each other: they count as the square root of their number.
    """
    few, every = 0, 0
    for contraction in graph.contractions:
        if oversized(graph, network, contraction, samples * copies) and not oversized(
            graph, network, contraction, samples
        ):
            return False
        rows, columns, size = rows_and_columns(network, graph, contraction, samples)
        every += size
        scarce = sqrt(rows * samples) < SCARCE_ALIKE * columns if alike else rows < SCARCE * columns
        few += size if scarce else 0
    return 2 * few >= every > 0


def images(network: Network) -> tuple[str, ...]:
    """Return the inputs (N, C, H, W) that nothing but convolutions reads, and pointwise operators and Pad on the way there, or asks for its size."""
    found = []
    for value in network.inputs:
        kind = value.type.tensor_type
        if len(kind.shape.dim) == 4 and _convolved(network, value.name):
            found.append(value.name)
    return tuple(found)


def alike(seen: Sequence[Array], mirrored: Sequence[Array]) -> bool:
    """True if outputs (samples, ...) for mirrored images are like those for the images as they are, by `ALIKE`.

    Not where their shapes differ, as those of boxes that a model finds, nor numbers of the whole batch unless they are equal.
    """
    for output, other in zip(seen, mirrored, strict=True):
        first, second = (np.atleast_1d(np.asarray(item, np.float64)) for item in (output, other))
        if first.shape != second.shape or not np.sum((first - second) ** 2) <= ALIKE * np.sum(
            (first - first.mean(axis=0)) ** 2
        ):
            return False
    return True


def shifted(data: Calibration, names: tuple[str, ...], moves: Sequence[Move] = MOVES) -> Calibration:
    """Return `data` and a copy of it for each of `moves`, with the images `names` moved, their borders repeated.

    Of an odd chunk at the end there are no copies: a copy lies in the same half of the chunks as its original, so that what is fitted on one half is
    held against images that it has not seen.
    """
    even = data.samples // (2 * data.chunk) * (2 * data.chunk)
    arrays = {}
    for name in data.arrays:
        array = data.all_of(name)
        first = array[:even]
        copies = [moved(first, *move) if name in names else first for move in moves]
        arrays[name] = np.concatenate([first, *copies, array[even:]])
    return replace(data, arrays=arrays, rows=None)


def moved(batch: Array, down: int, right: int, mirrored: bool = False) -> Array:
    """Return images (N, C, H, W) moved by so many pixels, then mirrored; what comes in repeats the border."""
    height, width = batch.shape[2:]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    found = batch[:, :, rows[:, None], columns]
    return found[..., ::-1] if mirrored else found


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
        if key_of(node) in ("Shape", "Size") or (key_of(node) == "Conv" and slot == 0):
            continue
        joined = key_of(node) in JOINING and node.input[1 - slot] in network.constants
        if not joined and not (key_of(node) in PASSING and slot == 0):
            return False
        if not _convolved(network, node.output[0]):
            return False
    return True
