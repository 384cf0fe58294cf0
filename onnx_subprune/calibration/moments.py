"""Moments of a contraction: all that selection and refit need to know of the data.

With B (n x p) the unfolded input and T (n x m) the target:

    gram = B'B    cross = B'T    energy = column sums of T^2    sum_input, sum_target = column sums of B, T

Products are float32 over bounded blocks; blocks are added in float64, and chunks with a compensated (double-double)
sum, so that neither batch size, nor shards, nor the order of arrival changes the result.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.calibration.layout import Layout

Array = NDArray[np.generic]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """Sums over samples, float64; g convolution groups, p columns and m targets each.

    count: number of rows n. gram: (g, p, p). cross: (g, p, m). energy: (g, m). sum_input: (g, p). sum_target: (g, m).
    """

    count: float
    gram: Float64
    cross: Float64
    energy: Float64
    sum_input: Float64
    sum_target: Float64

    def __add__(self, other: "Moments") -> "Moments":
        """Return the moments of the union of disjoint data."""
        return Moments(**{item.name: getattr(self, item.name) + getattr(other, item.name) for item in fields(self)})

    def centered(self) -> "Moments":
        """Return the moments about the column means: the regression with a free bias."""
        left, right = self.sum_input[:, :, None], self.sum_target[:, None, :]
        return Moments(
            count=self.count,
            gram=self.gram - left * self.sum_input[:, None, :] / self.count,
            cross=self.cross - left * right / self.count,
            energy=self.energy - self.sum_target**2 / self.count,
            sum_input=np.zeros_like(self.sum_input),
            sum_target=np.zeros_like(self.sum_target),
        )

    def with_target(self, weights: Float64) -> "Moments":
        """Return the moments whose target is B @ weights, (g, p, m): the layerwise and sequential problems."""
        cross = self.gram @ weights
        return Moments(
            count=self.count,
            gram=self.gram,
            cross=cross,
            energy=np.einsum("gpm,gpm->gm", weights, cross),
            sum_input=self.sum_input,
            sum_target=np.einsum("gp,gpm->gm", self.sum_input, weights),
        )

    def shifted(self, offset: Float64) -> "Moments":
        """Return the moments of the target plus `offset`, (g, m)."""
        return Moments(
            count=self.count,
            gram=self.gram,
            cross=self.cross + self.sum_input[:, :, None] * offset[:, None, :],
            energy=self.energy + 2 * offset * self.sum_target + self.count * offset**2,
            sum_input=self.sum_input,
            sum_target=self.sum_target + self.count * offset,
        )


class Compensated:
    """A sum of float64 arrays kept as hi + lo; the order of the summands does not change what `total` returns."""

    def __init__(self) -> None:
        self._hi: Float64 | None = None
        self._lo: Float64 | None = None

    def add(self, value: Float64) -> None:
        """Add `value`."""
        if self._hi is None or self._lo is None:
            self._hi, self._lo = np.array(value, np.float64), np.zeros_like(value, np.float64)
            return
        total = self._hi + value
        back = total - self._hi
        self._lo += (self._hi - (total - back)) + (value - back)
        self._hi = total

    def total(self) -> Float64:
        """Return the sum, rounded once."""
        assert self._hi is not None, "nothing was added"
        assert self._lo is not None
        return np.asarray(self._hi + self._lo)


class Accumulator:
    """Collects the moments of one contraction, chunk by chunk; `with_gram` False leaves the gram out (a new target only)."""

    def __init__(self, layout: Layout, *, with_gram: bool = True) -> None:
        self._layout, self._with_gram = layout, with_gram
        self._sums = {item.name: Compensated() for item in fields(Moments)}

    def add(self, x: Array, output_shape: tuple[int, ...], target: Array | None) -> None:
        """Add one chunk: the input, the shape of the output, and the target in the layout of the output (None: gram only)."""
        layout = self._layout
        aim = None if target is None else layout.target(target)
        parts: dict[str, list[Float64]] = {name: [] for name in self._sums}
        for columns, b in layout.blocks(x, output_shape):
            parts["count"].append(np.float64(b.shape[2]) * np.ones(()))
            parts["sum_input"].append(b.sum(axis=2, dtype=np.float64))
            if self._with_gram:
                parts["gram"].append((b @ b.transpose(0, 2, 1)).astype(np.float64))
            if aim is not None:
                t = aim[:, :, columns]
                parts["cross"].append((b @ t.transpose(0, 2, 1)).astype(np.float64))
                parts["energy"].append(np.einsum("gmn,gmn->gm", t, t, dtype=np.float64))
                parts["sum_target"].append(t.sum(axis=2, dtype=np.float64))
        for name, values in parts.items():
            if values:
                self._sums[name].add(np.sum(values, axis=0) if len(values) > 1 else values[0])

    def moments(self, gram: Float64 | None = None) -> Moments:
        """Return the sums; what was not collected is zero, but for `gram` where it is given."""
        counted = {name: total.total() for name, total in self._sums.items() if total._hi is not None}
        sum_input = counted["sum_input"]
        groups, p = sum_input.shape
        m = counted["cross"].shape[2] if "cross" in counted else 0
        return Moments(
            count=float(counted["count"]),
            gram=counted["gram"] if gram is None else gram,
            cross=counted.get("cross", np.zeros((groups, p, m))),
            energy=counted.get("energy", np.zeros((groups, m))),
            sum_input=sum_input,
            sum_target=counted.get("sum_target", np.zeros((groups, m))),
        )
