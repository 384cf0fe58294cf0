"""Moments of a convolution at stride 1 without unfolding, by lags.

With x zero outside of the image and tap u of output position q reading x[q + o_u], the gram's block for taps u, v is

    G[u, v] = sum over r in R(u) of x[r] x[r + d]',    d = o_v - o_u,    R(u) = o_u + {output positions}

and depends on the lag d, apart from the border: R(u) leaves out pixels r near one edge. So one product over the whole
image serves all pairs of taps of a lag (13 lags for 3 x 3, by symmetry), minus products over thin strips (axis by axis
the pixels left and right of R(u), which is inclusion and exclusion in the plane).

The images lie channel first with zeros between rows, (channels, axis 1, samples, axis 2 ...): a lag is then a shift of
the flattened array, and both factors of a product are views.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from math import prod

import numpy as np

from onnx_subprune._typing import Float32, Float64
from onnx_subprune.graph.contractions.convolution import Window
from onnx_subprune.selection.linalg.rounding import ROUNDING, energies, zero_columns

Lag = tuple[int, ...]
Interval = tuple[int, int] | None
"""Pixels of one axis, [start, stop); None for all."""
Term = tuple[int, int]
"""Sign and index of a box."""
CHANNELS = 32
"""A gram is put together tap by tap, in strips of so many channels, which stay in the cache: its taps lie side by side, those of the products apart."""


@dataclass(frozen=True, slots=True)
class Box:
    """A product that is computed: pixels r in `intervals`, times the pixels r + lag."""

    lag: Lag
    intervals: tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """How the box with number `box` is computed: the product over the pixels in `intervals`, added to the box `onto`, which comes before, if any.

    The strips of a long kernel lie one in the other: each is the next smaller one and a few pixels more.
    """

    box: int
    intervals: tuple[Interval, ...]
    onto: int | None


def _terms(window: Window, u: int, v: int) -> list[tuple[int, Interval]]:
    """Return the pixels of R(u) with a partner in the image as signed intervals, all - left - right; none is empty."""
    offset, lag = window.offsets[u], window.offsets[v] - window.offsets[u]
    first, last = max(0, -lag), min(window.size, window.size - lag)
    begin, end = max(first, offset), min(last, window.out + offset)
    if begin >= end:
        return []
    left: list[tuple[int, Interval]] = [(-1, (first, begin))] if begin > first else []
    right: list[tuple[int, Interval]] = [(-1, (end, last))] if end < last else []
    return [(1, None), *left, *right]


@dataclass(frozen=True)
class LagPlan:
    """What to multiply for given windows, which step by 1 over an image that is not dilated."""

    windows: tuple[Window, ...]

    @cached_property
    def taps(self) -> tuple[tuple[int, ...], ...]:
        """The taps in row-major order, by their index on each axis."""
        return tuple(product(*(range(len(w.offsets)) for w in self.windows)))

    @cached_property
    def _planned(self) -> tuple[tuple[Box, ...], dict[tuple[int, int], tuple[Term, ...]]]:
        boxes: dict[Box, int] = {}
        pairs: dict[tuple[int, int], tuple[Term, ...]] = {}
        for (i, u), (j, v) in product(enumerate(self.taps), repeat=2):
            lag = tuple(w.offsets[b] - w.offsets[a] for w, a, b in zip(self.windows, u, v, strict=True))
            if lag < (0,) * len(lag):
                continue  # the transpose of the pair (v, u)
            terms = []
            for parts in product(*(_terms(w, a, b) for w, a, b in zip(self.windows, u, v, strict=True))):
                box = Box(lag, tuple(interval for _, interval in parts))
                terms.append((prod(sign for sign, _ in parts), boxes.setdefault(box, len(boxes))))
            pairs[i, j] = tuple(terms)
        return tuple(boxes), pairs

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The products that are needed."""
        return self._planned[0]

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """How the products are computed, in this order."""
        found, nearest = list[Step](), dict[tuple[object, ...], tuple[int, int]]()
        for number in sorted(range(len(self.boxes)), key=lambda number: self.pixels(self.boxes[number].intervals)):
            box = self.boxes[number]
            whole = box.intervals
            ways = [Step(number, whole, None)]
            for axis, interval in enumerate(whole):
                for side in (0, 1) if interval is not None else ():
                    assert interval is not None
                    key = (box.lag, axis, whole[:axis], whole[axis + 1 :], side, interval[side])
                    if key in nearest:  # begins, or ends, where this one does
                        onto, edge = nearest[key]
                        rest = (edge, interval[1]) if side == 0 else (interval[0], edge)
                        ways.append(Step(number, (*whole[:axis], rest, *whole[axis + 1 :]), onto))
                    nearest[key] = number, interval[1 - side]
            found.append(min(ways, key=lambda step: self.pixels(step.intervals)))
        return tuple(found)

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """Length of each axis with its zeros: no shift by a lag or an offset may end in another row's pixels."""
        first, *rest = self.windows
        lengths = [max(first.size, first.out)]
        for w in rest:
            reach = max(w.offsets) - min(w.offsets)
            lengths.append(max(w.size + reach, w.size + w.before, w.out, w.out + max(w.offsets)))
        return tuple(lengths)

    def pixels(self, intervals: Sequence[Interval]) -> int:
        """Return the pixels of a sample that a product runs over, zeros included."""
        lengths = [length if i is None else i[1] - i[0] for i, length in zip(intervals, self.grid, strict=True)]
        return prod(lengths)

    def lay(self, images: Float32, groups: int) -> Float32:
        """Return `images` (samples, channels, *spatial) on the grid, (groups, c, grid 1, samples, grid 2 ...)."""
        samples, channels = images.shape[:2]
        first, *rest = self.grid
        laid = np.zeros((channels, first, samples, *rest), np.float32)
        inside = tuple(slice(size) for size in images.shape[2:])
        laid[:, inside[0], :, *inside[1:]] = np.moveaxis(images, (1, 2, 0), (0, 1, 2))
        return laid.reshape(groups, channels // groups, *laid.shape[1:])

    def _strides(self, samples: int) -> tuple[int, ...]:
        """How far a step along each axis is on the flattened grid."""
        rest = self.grid[1:]
        return (samples * prod(rest), *(prod(rest[axis + 1 :]) for axis in range(len(rest))))

    def products(self, laid: Float32) -> Float32:
        """Return the product of every box, (boxes, groups, channels, channels), for the output of `lay`."""
        flat = laid.reshape(*laid.shape[:2], -1)
        strides = self._strides(laid.shape[3])
        found = np.empty((len(self.boxes), *laid.shape[:2], laid.shape[1]), np.float32)
        for step in self.steps:
            box, out = Box(self.boxes[step.box].lag, step.intervals), found[step.box]
            shift = sum(lag * stride for lag, stride in zip(box.lag, strides, strict=True))
            if all(interval is None for interval in box.intervals[1:]):
                start, stop = box.intervals[0] or (0, self.grid[0])
                begin, end = start * strides[0], min(stop * strides[0], flat.shape[2] - shift)
                here, there = flat[:, :, begin:end], flat[:, :, begin + shift : end + shift]
            else:
                here, there = (self._strip(laid, box, lag) for lag in ((0,) * len(box.lag), box.lag))
            np.matmul(here, (here if shift == 0 else there).transpose(0, 2, 1), out=out)
            if step.onto is not None:
                out += found[step.onto]
        return found

    def _strip(self, laid: Float32, box: Box, lag: Lag) -> Float32:
        """Copy the pixels of a box, moved by `lag`."""
        ranges = []
        for interval, w, moved, own in zip(box.intervals, self.windows, lag, box.lag, strict=True):
            start, stop = interval or (max(0, -own), min(w.size, w.size - own))
            ranges.append(slice(start + moved, stop + moved))
        return laid[:, :, ranges[0], :, *ranges[1:]].reshape(*laid.shape[:2], -1)

    def crosses(self, laid: Float32, target: Float32) -> Float32:
        """Return, tap by tap, input times target, (taps, groups, channels, m); both arguments come from `lay`."""
        x, t = laid.reshape(*laid.shape[:2], -1), target.reshape(*target.shape[:2], -1)
        strides = self._strides(laid.shape[3])
        found = np.empty((len(self.taps), *x.shape[:2], t.shape[1]), np.float32)
        for tap, out in zip(self.taps, found, strict=True):
            shift = sum(w.offsets[i] * stride for w, i, stride in zip(self.windows, tap, strides, strict=True))
            length = max(0, x.shape[2] - abs(shift))
            here = x[:, :, max(0, shift) : max(0, shift) + length]
            np.matmul(here, t[:, :, max(0, -shift) : max(0, -shift) + length].transpose(0, 2, 1), out=out)
        return found

    def gram(self, parts: Float64) -> Float64:
        """Put the gram (groups, c * taps, c * taps) together from the products (boxes, groups, c, c)."""
        groups, channels, taps = *parts.shape[1:3], len(self.taps)
        gram, pairs = np.empty((groups, channels, taps, channels, taps)), self._planned[1]
        turned = parts.transpose(0, 1, 3, 2)
        for start in range(0, channels, CHANNELS):
            own = slice(start, start + CHANNELS)
            for i in range(taps):
                row = np.zeros((taps, groups, len(range(channels)[own]), channels))
                for j, out in enumerate(row):
                    if (i, j) in pairs:
                        _add(pairs[i, j], parts[:, :, own], out)
                    else:
                        _add(pairs[j, i], turned[:, :, own], out)
                gram[:, own, i] = np.moveaxis(row, 0, -1)
        whole = gram.reshape(groups, channels * taps, -1)
        everywhere = Box((0,) * len(self.windows), (None,) * len(self.windows))
        if everywhere in self.boxes:  # not if every tap reads zeros beside the image alone
            of_channels = energies(parts[self.boxes.index(everywhere)])
            zero_columns(whole, energies(whole) <= ROUNDING * np.repeat(of_channels, taps, axis=1))
        return whole


@lru_cache(maxsize=64)
def plan_of(windows: tuple[Window, ...]) -> LagPlan:
    """Return the plan for these windows, which is made once: with long kernels that takes as long as some chunks."""
    return LagPlan(windows)


def _add(terms: Sequence[Term], parts: Float64, out: Float64) -> None:
    """Add some parts to `out`, each with its sign."""
    for sign, box in terms:
        (np.add if sign > 0 else np.subtract)(out, parts[box], out=out)


def usable(windows: Sequence[Window]) -> bool:
    """Return whether lags describe these windows."""
    return len(windows) > 0 and all(w.step == w.input_dilation == 1 and w.out > 0 and w.size > 0 for w in windows)
