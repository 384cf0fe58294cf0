"""A consumer's input as the matrix that its weights multiply, and its output in the same row order.

Inside, matrices are kept transposed, (groups, p, n): every column of the unfolded input is then a run of shifted images,
copied row by row, and symmetric products need no further copy. Blocks are cut at places that depend on shapes only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from onnx_subprune._typing import Array, Float32, Float64, Int64
from onnx_subprune.graph.contractions.convolution import Convolution, Window
from onnx_subprune.graph.contractions.kernel import Kernel

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
    """Choose `limit` of `total` output positions, the same ones for every sample, sorted; None (all) if there are no more."""
    if total <= limit:
        return None
    return np.sort(generator.choice(total, limit, replace=False)).astype(np.int64)


def output_positions(contraction: Convolution, input_shape: Sequence[int]) -> int:
    """Return the number of output positions of a sample of a convolution."""
    return prod(window.out for window in contraction.windows(input_shape[2:]))


def unfold(contraction: Kernel, x: Array, positions: Int64 | None = None) -> Float32:
    """Return the whole unfolded input of `x`, (groups, n, p) float32; rows run over samples, then output positions."""
    parts = [block.input for block in blocks(contraction, x, None, positions)]
    return np.concatenate(parts, axis=2).transpose(0, 2, 1)


def at(images: Array, positions: Int64) -> Array:
    """Return (samples, channels, positions) of images (samples, channels, *spatial)."""
    return images.reshape(*images.shape[:2], -1).take(positions, axis=2)


def rows(contraction: Kernel, y: Array) -> Float32:
    """Return the output `y`, bias included as it is, as (groups, n, m) float32 in the row order of `unfold`."""
    return contraction.by_channel(y, contraction.output_axis).transpose(0, 2, 1)


def blocks(
    contraction: Kernel, x: Array, y: Array | None = None, positions: Int64 | None = None, limit: int = LIMIT
) -> Iterator[Block]:
    """Yield the unfolded input of `x` and the output `y` block by block, in row order.

    limit: bytes of unfolded input that are alive at once; a single line of output positions may exceed it.
    positions: flat output positions to take, sorted; None for all. Only convolutions have positions. With them `y` is (samples,
    channels, positions).
    """
    if not isinstance(contraction, Convolution):
        assert positions is None, "only convolutions have positions"
        yield from _products(contraction, x, y)
        return
    shape = contraction.windows(x.shape[2:])
    total = prod(window.out for window in shape) if positions is None else len(positions)
    if total == 0 or len(x) == 0:
        return
    direct = positions is None and _plain(shape)
    row = 4 * x.shape[1] * contraction.taps
    if direct and total >= WHOLE:  # long rows already: no copy
        for image, aim in zip(x, [None] * len(x) if y is None else y, strict=True):
            yield from _cut(_flat(contraction, image), None if aim is None else _flat(contraction, aim), ROWS)
        return
    size = max(1, min(ROWS, limit // row))
    many = max(1, size // total)
    for start in range(0, len(x), many):
        part = x[start : start + many].astype(np.float32, copy=False)
        aim = None if y is None else contraction.by_channel(y[start : start + many], 1)
        if direct:
            yield from _cut(contraction.by_channel(part, 1), aim, size)
            continue
        done = 0
        for slab, chosen in _slabs(shape, positions, max(1, max(size, limit // row) // len(part))):
            source = _unfolded(contraction, part, slab, chosen)
            here = None if aim is None else aim[:, :, done : done + source.shape[2]]
            yield from _cut(source, here, size)
            done += source.shape[2]


def _slabs(
    shape: tuple[Window, ...], positions: Int64 | None, limit: int
) -> Iterator[tuple[tuple[Window, ...], Int64 | None]]:
    """Cut the output positions into runs of about `limit`: along the first axis, or the list of positions."""
    if positions is not None:
        for start in range(0, len(positions), limit):
            yield shape, positions[start : start + limit]
        return
    first, rest = shape[0], shape[1:]
    step = max(1, limit // prod(w.out for w in rest))
    for start in range(0, first.out, step):
        offsets = tuple(offset + first.step * start for offset in first.offsets)
        yield (replace(first, out=min(step, first.out - start), offsets=offsets), *rest), None


def _cut(source: Float32, aim: Float32 | None, size: int) -> Iterator[Block]:
    for start in range(0, source.shape[2], size):
        part = slice(start, start + size)
        yield Block(source[:, :, part], None if aim is None else aim[:, :, part])


def _flat(contraction: Convolution, image: Array) -> Float32:
    return image.astype(np.float32, copy=False).reshape(contraction.groups, image.shape[0] // contraction.groups, -1)


def _products(contraction: Kernel, x: Array, y: Array | None) -> Iterator[Block]:
    source = contraction.by_channel(x, contraction.input_axis)
    aim = None if y is None else contraction.by_channel(y, contraction.output_axis)
    yield from _cut(source, aim, ROWS)


def _plain(shape: Sequence[Window]) -> bool:
    """Return whether every output position reads just its own input position."""
    return all(w.offsets == (0,) and w.step == w.input_dilation == 1 and w.out == w.size for w in shape)


def _spatial(ranges: Sequence[slice]) -> tuple[slice, ...]:
    return (slice(None), slice(None), *ranges)


def _padded(part: NDArray[Real], shape: Sequence[Window]) -> NDArray[Real]:
    """Return the images channel first, (channels, samples, *padded), dilated and padded."""
    padded = np.zeros((part.shape[1], len(part), *(w.before + w.dilated + w.after for w in shape)), part.dtype)
    inside = [slice(w.before, w.before + w.dilated, w.input_dilation) for w in shape]
    padded[_spatial(inside)] = np.moveaxis(part, 1, 0)
    return padded


def _tap_views(padded: NDArray[Real], contraction: Convolution, shape: Sequence[Window]) -> Iterator[NDArray[Real]]:
    """Yield, tap by tap, the pixels that the output positions read, (channels, samples, *out), as views."""
    for index in np.ndindex(*contraction.kernel):
        starts = [w.offsets[t] + w.before for w, t in zip(shape, index, strict=True)]
        read = [slice(i, i + (w.out - 1) * w.step + 1, w.step) for w, i in zip(shape, starts, strict=True)]
        yield padded[_spatial(read)]


def _unfolded(contraction: Convolution, part: Float32, shape: Sequence[Window], positions: Int64 | None) -> Float32:
    if positions is None:
        return _shifted(contraction, part, shape)
    return _gathered(contraction, part, shape, positions)


def _shifted(contraction: Convolution, part: NDArray[Real], shape: Sequence[Window]) -> NDArray[Real]:
    unfolded = np.empty((part.shape[1], contraction.taps, len(part), *(w.out for w in shape)), part.dtype)
    for tap, view in enumerate(_tap_views(_padded(part, shape), contraction, shape)):
        unfolded[:, tap] = view
    return unfolded.reshape(contraction.groups, part.shape[1] // contraction.groups * contraction.taps, -1)


def image_sums(contraction: Convolution, total: Float64) -> Float64:
    """Return the column sums (g, p) of the unfolded input of a convolution.

    total: (channels, *spatial), the sum of the images.
    """
    shape = contraction.windows(total.shape[1:])
    padded = _padded(total[None], shape)
    sums = [view.reshape(len(total), -1).sum(axis=1) for view in _tap_views(padded, contraction, shape)]
    return np.stack(sums, axis=1).reshape(contraction.groups, -1)


def _gathered(contraction: Convolution, part: Float32, shape: Sequence[Window], positions: Int64) -> Float32:
    """The unfolded input at `positions` alone, read where it lies."""
    samples, channels = part.shape[:2]
    taps = np.array(list(np.ndindex(*contraction.kernel)), np.int64).reshape(contraction.taps, -1)
    inside, pixels = np.ones((contraction.taps, len(positions)), bool), []
    for axis, (w, place) in enumerate(zip(shape, np.unravel_index(positions, [w.out for w in shape]), strict=True)):
        dilated = np.array(w.offsets)[taps[:, axis], None] + w.step * place
        inside &= (dilated >= 0) & (dilated < w.dilated) & (dilated % w.input_dilation == 0)
        pixels.append(np.clip(dilated // w.input_dilation, 0, w.size - 1))
    flat = np.ravel_multi_index(tuple(pixels), part.shape[2:])
    unfolded = np.empty((channels, contraction.taps, samples, len(positions)), np.float32)
    found = part.reshape(samples, channels, -1).take(flat.ravel(), axis=2)
    unfolded[:] = found.reshape(samples, channels, contraction.taps, -1).transpose(1, 2, 0, 3)
    for tap in np.flatnonzero(~inside.all(axis=1)):
        unfolded[:, tap][:, :, ~inside[tap]] = 0.0
    return unfolded.reshape(contraction.groups, channels // contraction.groups * contraction.taps, -1)
