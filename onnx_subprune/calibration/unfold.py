"""A consumer's input as the matrix that its weights multiply, and its output in the same row order.

Inside, matrices are kept transposed, (groups, p, n): every column of the unfolded input is then a run of shifted images, copied
row by row, and symmetric products need no further copy. Blocks are cut at places that depend on shapes only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.calibration.contraction import CONVOLUTIONS, Contraction
from onnx_subprune.calibration.windows import Window, windows

Array = NDArray[np.generic]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Real = TypeVar("Real", np.float32, np.float64)

LIMIT = 64 << 20
"""Bytes of unfolded input that are alive at once."""
ROWS = 8192
"""Rows that are added up in float32."""
WHOLE = 512
"""A 1 x 1 convolution with this many positions is taken sample by sample, as it lies in memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Some rows: input (groups, p, n) float32; target (groups, m, n) float32, None where there is none."""

    input: Float32
    target: Float32 | None


def sample_positions(total: int, limit: int, generator: np.random.Generator) -> Int64 | None:
    """Choose `limit` of `total` output positions, the same ones for every sample, sorted; None (all) where there are no more than that."""
    if total <= limit:
        return None
    return np.sort(generator.choice(total, limit, replace=False)).astype(np.int64)


def output_positions(contraction: Contraction, input_shape: Sequence[int]) -> int:
    """Return the number of output positions of a sample of a convolution."""
    return prod(window.out for window in windows(contraction, input_shape[2:]))


def unfold(contraction: Contraction, x: Array, positions: Int64 | None = None) -> Float32:
    """Return the whole unfolded input of `x`, (groups, n, p) float32; rows run over samples, then output positions."""
    parts = [block.input for block in blocks(contraction, x, None, positions)]
    return np.concatenate(parts, axis=2).transpose(0, 2, 1)


def rows(contraction: Contraction, y: Array, positions: Int64 | None = None) -> Float32:
    """Return the output `y` as (groups, n, m) float32, in the row order of `unfold`; a bias that is in `y` stays in it."""
    return _columns(contraction, y, contraction.output_axis, positions).transpose(0, 2, 1)


def unrows(contraction: Contraction, target: Array, output_shape: Sequence[int]) -> Array:
    """Undo `rows` (all positions): return the output of this shape from (groups, n, m)."""
    axis = contraction.output_axis % len(output_shape)
    rest = [size for index, size in enumerate(output_shape) if index != axis]
    return np.moveaxis(target.transpose(0, 2, 1).reshape(output_shape[axis], *rest), 0, axis)


def blocks(
    contraction: Contraction, x: Array, y: Array | None = None, positions: Int64 | None = None, limit: int = LIMIT
) -> Iterator[Block]:
    """Yield the unfolded input of `x` and the output `y` block by block, in row order, at most about `limit` bytes of input at once.

    positions: flat output positions to take, sorted; None for all. Only convolutions have positions.
    """
    if contraction.kind not in CONVOLUTIONS:
        assert positions is None, "only convolutions have positions"
        yield from _products(contraction, x, y)
        return
    shape = windows(contraction, x.shape[2:])
    total = prod(window.out for window in shape) if positions is None else len(positions)
    if total == 0 or len(x) == 0:
        return
    direct = positions is None and _plain(shape)
    row = 4 * x.shape[1] * contraction.taps
    if direct and total >= WHOLE:  # long rows already: no copy
        for image, aim in zip(x, [None] * len(x) if y is None else y, strict=True):
            yield from _cut(_flat(contraction, image), None if aim is None else _flat(contraction, aim), ROWS)
        return
    many = max(1, min(ROWS, limit // row) // total)
    for start in range(0, len(x), many):
        part = x[start : start + many].astype(np.float32, copy=False)
        aim = None if y is None else _columns(contraction, y[start : start + many], 1, positions)
        if direct:
            source = np.ascontiguousarray(np.moveaxis(part, 1, 0)).reshape(
                contraction.groups, x.shape[1] // contraction.groups, -1
            )
        elif positions is None:
            source = _shifted(contraction, part, shape)
        else:
            source = _gathered(contraction, part, shape, positions)
        yield from _cut(source, aim, max(1, min(ROWS, limit // row)))


def _cut(source: Float32, aim: Float32 | None, size: int) -> Iterator[Block]:
    for start in range(0, source.shape[2], size):
        part = slice(start, start + size)
        yield Block(source[:, :, part], None if aim is None else aim[:, :, part])


def _flat(contraction: Contraction, image: Array) -> Float32:
    return image.astype(np.float32, copy=False).reshape(contraction.groups, image.shape[0] // contraction.groups, -1)


def _products(contraction: Contraction, x: Array, y: Array | None) -> Iterator[Block]:
    source = _columns(contraction, x, contraction.input_axis, None)
    aim = None if y is None else _columns(contraction, y, contraction.output_axis, None)
    yield from _cut(source, aim, ROWS)


def _columns(contraction: Contraction, tensor: Array, axis: int, positions: Int64 | None) -> Float32:
    """Return `tensor` as (groups, channels, n) with the channels of `axis`; a view where possible."""
    moved = np.moveaxis(tensor.astype(np.float32, copy=False), axis, 0)
    if positions is not None:
        moved = moved.reshape(*moved.shape[:2], -1)[:, :, positions]
    channels = moved.shape[0]
    if axis in (-1, 1) and tensor.ndim > 2 and contraction.kind not in CONVOLUTIONS:  # channels last: keep the view
        return tensor.astype(np.float32, copy=False).reshape(-1, channels).T[None]
    return moved.reshape(contraction.groups, channels // contraction.groups, -1)


def _plain(shape: Sequence[Window]) -> bool:
    """Return whether every output position reads just its own input position."""
    return all(w.offsets == (0,) and w.step == w.stuffing == 1 and w.out == w.size for w in shape)


def _padded(part: NDArray[Real], shape: Sequence[Window]) -> NDArray[Real]:
    """Return the images channel first, (channels, samples, *padded), stuffed and padded."""
    padded = np.zeros((part.shape[1], len(part), *(w.before + w.stuffed + w.after for w in shape)), part.dtype)
    inside = tuple(slice(w.before, w.before + w.stuffed, w.stuffing) for w in shape)
    padded[:, :, *inside] = np.moveaxis(part, 1, 0)
    return padded


def _shifted(contraction: Contraction, part: NDArray[Real], shape: Sequence[Window]) -> NDArray[Real]:
    padded = _padded(part, shape)
    unfolded = np.empty((part.shape[1], contraction.taps, len(part), *(w.out for w in shape)), part.dtype)
    for tap, index in enumerate(np.ndindex(*contraction.kernel)):
        starts = [w.offsets[t] + w.before for w, t in zip(shape, index, strict=True)]
        read = tuple(
            slice(start, start + (w.out - 1) * w.step + 1, w.step) for w, start in zip(shape, starts, strict=True)
        )
        unfolded[:, tap] = padded[:, :, *read]
    return unfolded.reshape(contraction.groups, part.shape[1] // contraction.groups * contraction.taps, -1)


def image_sums(contraction: Contraction, total: Float64, positions: Int64 | None = None) -> Float64:
    """Return the column sums (g, p) of the unfolded input of a convolution whose images sum to `total` (channels, *spatial)."""
    shape = windows(contraction, total.shape[1:])
    if positions is None:
        unfolded = _shifted(contraction, total[None], shape)
    else:
        unfolded = _gathered(contraction, total[None], shape, positions)
    return np.asarray(unfolded.sum(axis=2))


def _gathered(
    contraction: Contraction, part: NDArray[Real], shape: Sequence[Window], positions: Int64
) -> NDArray[Real]:
    padded = _padded(part, shape)
    chosen = np.unravel_index(positions, tuple(w.out for w in shape))
    places = [(w.before + w.step * o)[None, :] for w, o in zip(shape, chosen, strict=True)]
    taps = np.array(list(np.ndindex(*contraction.kernel)), np.int64).reshape(contraction.taps, -1)
    shifted = [
        place + np.array(w.offsets)[taps[:, axis], None]
        for axis, (w, place) in enumerate(zip(shape, places, strict=True))
    ]
    flat = np.ravel_multi_index(tuple(shifted), padded.shape[2:])
    gathered = padded.reshape(*padded.shape[:2], -1)[:, :, flat]  # (channels, samples, taps, positions)
    unfolded = np.ascontiguousarray(gathered.transpose(0, 2, 1, 3))
    return unfolded.reshape(contraction.groups, part.shape[1] // contraction.groups * contraction.taps, -1)
