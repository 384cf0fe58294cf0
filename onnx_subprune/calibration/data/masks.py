"""Positions that an input hides, as the padding behind a sentence: they are no rows, neither of a fit nor of an error.

What a model puts out there nobody looks at, and of sentences of all lengths half of the positions may be such.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_subprune._typing import Array, Mask
from onnx_subprune.calibration.data.mapped import in_memory
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.errors import DataError, meant
from onnx_subprune.graph.contractions.kernel import Kernel
from onnx_subprune.graph.network import Network

SPREADING = frozenset(
    [
        "Add",
        "And",
        "Cast",
        "Concat",
        "Div",
        "Equal",
        "Expand",
        "Greater",
        "GreaterOrEqual",
        "Identity",
        "Less",
        "LessOrEqual",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "Reshape",
        "Slice",
        "Squeeze",
        "Sub",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Where",
    ]
)
"""What leads from a mask to the scores that it hides: elementwise operators and changes of layout."""
ATTENTION = frozenset(["Softmax", "Attention", "MultiHeadAttention"])


def mask_of(network: Network, data: Calibration, given: str | None) -> str | None:
    """Return the input that hides positions: `given`, or the one that hides some of them from the attention; None where there is none.

    Raises DataError where `given` is no input of (samples, positions) zeros and others.
    """
    if given is not None:
        if data.ragged:
            raise DataError(
                f"--mask {given}: runs of different sizes need no padding, and are taken whole; leave it out of them"
            )
        if given not in data.arrays or data.arrays[given].ndim != 2:
            raise DataError(
                f"--mask {given}: not an input of (samples, positions){meant(given, data.arrays)} inputs: {', '.join(data.arrays)}"
            )
        return given
    found = [value.name for value in network.inputs if value.name in data.arrays and not data.ragged]
    return next((name for name in found if _zeros_and_ones(data.all_of(name)) and _hides(network, name)), None)


@dataclass(frozen=True, slots=True, eq=False)
class Visible:
    """Which positions of each chunk of `data` the input `mask` shows; None: all."""

    data: Calibration
    mask: str | None

    def rows(self, kernel: Kernel, chunk: int, *arrays: Array | None) -> tuple[Array | None, ...]:
        """Return the visible rows, (n, ...), of what a matrix product reads and should put out, or everything where nothing is hidden."""
        shown = self._shown(chunk)
        if (
            shown is None
            or not kernel.rows_are_positions
            or not all(array is None or _fits(shown, array) for array in arrays)
        ):
            return arrays
        return tuple(None if array is None else array[shown if array.ndim > 2 else shown.ravel()] for array in arrays)

    def shown(self, chunk: int, array: Array) -> Array:
        """Return `array` with zeros at the hidden positions, as it is where it has none."""
        shown = self._shown(chunk)
        if shown is None or not _fits(shown, array):
            return array
        where = shown if array.ndim > 2 else shown.ravel()
        return np.where(
            where.reshape(*where.shape, *(1 for _ in array.shape[where.ndim :])), array, array.dtype.type(0)
        )

    def outputs(
        self, found: Sequence[Mapping[str, Array]], chunks: Sequence[int] | None = None
    ) -> list[Mapping[str, Array]]:
        """Return the outputs of these chunks with zeros at the hidden positions. chunks: their numbers; None for all from the first on."""
        numbers = range(len(found)) if chunks is None else chunks
        return [
            {name: self.shown(chunk, array) for name, array in outputs.items()}
            for chunk, outputs in zip(numbers, found, strict=True)
        ]

    def _shown(self, chunk: int) -> Mask | None:
        """(samples, positions) of a chunk; None where nothing is hidden, or everything."""
        if self.mask is None:
            return None
        shown = np.asarray(self.data.fed(self.mask, chunk) != 0)
        return None if shown.all() or not shown.any() else shown


def _fits(shown: Mask, array: Array) -> bool:
    """True if the first axes of an array count samples and positions, one by one or together."""
    return array.shape[:2] == shown.shape if array.ndim > 2 else array.ndim == 2 and len(array) == shown.size


def _zeros_and_ones(array: Array) -> bool:
    if array.ndim != 2 or array.shape[1] < 2 or array.dtype.kind not in "biuf":
        return False
    values = in_memory(array)
    return bool(np.all((values == 0) | (values == 1)) and not np.all(values))


def _hides(network: Network, name: str) -> bool:
    """True if a way leads from an input through `SPREADING` alone to an attention."""
    seen, waiting = {name}, [name]
    while waiting:
        for index, _ in network.readers.get(waiting.pop(), ()):
            node = network.nodes[index]
            if node.op_type in ATTENTION:
                return True
            if node.op_type in SPREADING:
                new = [made for made in node.output if made and made not in seen]
                seen.update(new)
                waiting += new
    return False
