"""The ways to form a chunk's products, and the choice between them by predicted cost.

A route turns one chunk of inputs (and targets) into `Products`: float32 products over bounded blocks of rows, summed in
float64. A route may keep the gram in parts, fewer numbers than the gram has; their sums become the gram once, at the end.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Protocol

import numpy as np

from onnx_subprune._typing import Array, Float32, Float64, Int64
from onnx_subprune.calibration.moments.lags import LagPlan, plan_of, usable
from onnx_subprune.calibration.moments.triangle import square, triangle
from onnx_subprune.calibration.moments.unfold import Block, blocks, image_sums
from onnx_subprune.graph.contractions.convolution import Convolution, Window
from onnx_subprune.graph.contractions.kernel import Kernel
from onnx_subprune.runtime.threads import alongside
from onnx_subprune.selection.linalg.summation import Summand

LIMIT = 16 << 20
"""Bytes of unfolded input that are alive at once: few, so that copies stay in the cache."""
LAID = 4096
"""Pixels of a block on the grid of lags: its channels are read once a lag, out of the cache."""
MOST_LAID = 4 * LAID
"""Pixels of a block at most where there are more numbers in the products than in the pixels, so that to add these up takes longer than to read."""
CALL = 4e-6
"""Seconds that a call of BLAS costs beside its work."""
DOT = 2e-7
"""The same where the product is a single number (a depthwise convolution's lag)."""
MARGIN = 1.25
"""Lags must promise to be this much cheaper: with few channels their cross-moments are slower."""
COPY = 3.5e-10
"""Seconds that a number costs to be copied."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Products:
    """Sums over one chunk, float32 if one block was enough, else float64; None where they were not asked for.

    count: rows. gram: parts of the route's own shape. cross: (g, p, m). energy, sum_target: (g, m). sum_input: (g, p).
    """

    count: int
    gram: Summand | None
    cross: Summand | None
    energy: Summand | None
    sum_input: Summand
    sum_target: Summand | None

    def unscaled(self, own: float, wanted: float) -> "Products":
        """Return those of inputs and targets that were multiplied by so much, powers of two; float64."""

        def divided(values: Summand | None, scale: float) -> Float64 | None:
            return None if values is None else values.astype(np.float64) / scale

        return Products(
            count=self.count,
            gram=divided(self.gram, own**2),
            cross=divided(self.cross, own * wanted),
            energy=divided(self.energy, wanted**2),
            sum_input=self.sum_input.astype(np.float64) / own,
            sum_target=divided(self.sum_target, wanted),
        )


class Route(Protocol):
    """A way to form products."""

    def products(self, x: Array, target: Array | None, *, with_gram: bool, threads: int = 1) -> Products:
        """Return the products of a chunk; `target` has the layout of the output. threads: 2 or more work on its blocks side by side."""

    def gram(self, parts: Float64, columns: int) -> Float64:
        """Return the gram (g, p, p) of so many columns from the sum of the parts."""


def route(contraction: Kernel, input_shape: Sequence[int]) -> Route:
    """Choose the cheaper route for all output positions of inputs of this shape; the number of samples plays no part."""
    if isinstance(contraction, Convolution) and contraction.taps > 1:
        shape = contraction.windows(input_shape[2:])
        if usable(shape) and contraction.taps <= MOST:
            plan = plan_of(shape)
            if MARGIN * lag_seconds(contraction.groups, input_shape[1] // contraction.groups, plan) < unfold_seconds(
                contraction, input_shape, shape
            ):
                return Lagging(contraction, plan)
    return Unfolding(contraction)


MOST = 169
"""Kernels with more taps than this are unfolded; there are few, and planning grows with the square."""
NOMINAL = 8192
"""Rows of a block for which the predictions hold."""


def _rate(size: int) -> float:
    """Operations a second of a product with this smaller side, as measured on two cores; only ratios count."""
    return 2.4e11 * size / (size + 32) if size > 1 else 3e10


@lru_cache(maxsize=64)
def lag_seconds(groups: int, c: int, plan: LagPlan) -> float:
    """Predict the seconds that the gram of so many convolution groups of c channels takes by lags, an output position."""
    positions = prod(w.out for w in plan.windows)
    call = CALL if c > 1 else DOT
    seconds = 0.0
    for step in plan.steps:
        pixels = plan.pixels(step.intervals)
        half = 1 if any(plan.boxes[step.box].lag) else 2
        seconds += pixels * groups * (2 * c * c / half / _rate(c)) + groups * call * positions / NOMINAL
        if any(interval is not None for interval in step.intervals[1:]):
            seconds += 2 * pixels * groups * c * COPY * 2
    return seconds / positions


def unfold_seconds(contraction: Kernel, input_shape: Sequence[int], shape: Sequence[Window]) -> float:
    """Predict the seconds that the gram takes by unfolding, an output position."""
    groups, p = contraction.groups, input_shape[1] // contraction.groups * contraction.taps
    copied = COPY * (1 + 8 / shape[-1].out)
    return groups * (p * p / _rate(p) + p * copied + CALL / NOMINAL)


@dataclass(frozen=True, slots=True, eq=False)
class Unfolding:
    """The unfolded input, block by block; for matrix products and 1 x 1 convolutions that is the input itself.

    positions: flat output positions to take, sorted; None for all. Targets hold those positions only.
    """

    contraction: Kernel
    positions: Int64 | None = None

    def products(self, x: Array, target: Array | None, *, with_gram: bool, threads: int = 1) -> Products:
        """See `Route`."""
        sums, kernel = _Sums(), self.contraction
        image = isinstance(kernel, Convolution) and self.positions is None
        if isinstance(kernel, Convolution) and image:
            sums.found["sum_input"] = image_sums(kernel, _total(x))

        def formed(block: Block) -> _Formed:
            b, t = block.input, block.target
            found = {} if image else {"sum_input": b.sum(axis=2)}
            if with_gram:
                found["gram"] = triangle(b)
            if t is not None:
                found |= {"cross": b @ t.transpose(0, 2, 1), **_of_target(t)}
            return b.shape[2], found

        made = blocks(self.contraction, x, target, self.positions, LIMIT)
        sums.add(alongside(formed, ((block,) for block in made), threads))
        return sums.products()

    def gram(self, parts: Float64, columns: int) -> Float64:
        """See `Route`."""
        return square(parts, columns)


@dataclass(frozen=True, slots=True, eq=False)
class Lagging:
    """Products by lags, see `lags`."""

    contraction: Convolution
    plan: LagPlan

    def products(self, x: Array, target: Array | None, *, with_gram: bool, threads: int = 1) -> Products:
        """See `Route`."""
        sums, plan, groups = _Sums(), self.plan, self.contraction.groups
        sums.found["sum_input"] = image_sums(self.contraction, _total(x))
        numbers = x.shape[1] * prod(
            plan.grid
        )  # of an image; blocks have at least as many as their products, which are added up
        apart = len(plan.boxes) * x.shape[1] ** 2 // groups
        many = max(1, LAID // prod(plan.grid), min(apart // numbers, MOST_LAID // prod(plan.grid)))

        def formed(start: int) -> _Formed:
            images, found = x[start : start + many].astype(np.float32, copy=False), dict[str, Float32]()
            laid = plan.lay(images, groups)
            if with_gram:
                found["gram"] = plan.products(laid)
            if target is not None:
                aim = plan.lay(target[start : start + many].astype(np.float32, copy=False), groups)
                found |= {"cross": plan.crosses(laid, aim), **_of_target(aim.reshape(*aim.shape[:2], -1))}
            return len(images) * prod(w.out for w in plan.windows), found

        sums.add(alongside(formed, ((start,) for start in range(0, len(x), many)), threads))
        if "cross" in sums.found:  # (taps, g, c, m)
            cross = sums.found["cross"].transpose(1, 2, 0, 3)
            sums.found["cross"] = cross.reshape(groups, -1, cross.shape[3])
        return sums.products()

    def gram(self, parts: Float64, columns: int) -> Float64:
        """See `Route`."""
        return self.plan.gram(parts)


def _total(images: Array) -> Float64:
    """Return the sum over the samples: float32 inside of a few, float64 beyond."""
    parts = [images[start : start + 32].sum(axis=0, dtype=np.float32) for start in range(0, len(images), 32)]
    return np.asarray(np.sum(parts, axis=0, dtype=np.float64))


_Formed = tuple[int, dict[str, Float32]]
"""Rows of a block, and its products by name."""


def _of_target(t: Float32) -> dict[str, Float32]:
    return {"energy": (t[:, :, None, :] @ t[:, :, :, None])[:, :, 0, 0], "sum_target": t.sum(axis=2)}


class _Sums:
    """float64 sums of float32 products."""

    def __init__(self) -> None:
        self.count = 0
        self.found: dict[str, Summand] = {}

    def add(self, formed: Iterable[_Formed]) -> None:
        for count, products in formed:
            self.count += count
            for name, value in products.items():
                held = self.found.get(name)
                if held is None:
                    self.found[name] = value  # a chunk of a single block needs no float64 copy
                else:
                    out = held if held.dtype == np.float64 else np.empty(held.shape)
                    self.found[name] = np.add(held, value, out=out, dtype=np.float64)

    def products(self) -> Products:
        found = self.found
        return Products(
            count=self.count,
            gram=found.get("gram"),
            cross=found.get("cross"),
            energy=found.get("energy"),
            sum_input=found["sum_input"],
            sum_target=found.get("sum_target"),
        )
