"""Coordinates of a recurrent layer's weights in which what is read is uncorrelated and of one size, so that no direction is steeper than another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Self

import numpy as np

from onnx_subprune._typing import Float64, Int64
from onnx_subprune.calibration.moments.regression import Regression
from onnx_subprune.graph.gradients.sequences import BIAS, RECURRENCE, WEIGHT

DAMPED = 1e-2
"""What is added to the second moments of columns before they are made equal, as a share of their mean."""

Constants = Mapping[str, Float64]
"""W (d, m, p), R (d, m, h) and, where there is one, B (d, 2 m)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coordinates:
    """white: roots of the inverse second moments of the columns of W and of R, each with one of ones behind them where there is a bias. rows: m."""

    white: tuple[Float64, Float64]
    rows: int
    biased: bool

    @classmethod
    def of(cls, seen: Regression, columns: tuple[Int64, Int64], rows: int, *, biased: bool) -> Self:
        """Return the coordinates for moments of what is read, (d, p + h), of which `columns` belong to W and to R."""
        parts = [np.stack([_white(seen, own, d, biased=biased) for d in range(len(seen.squares))]) for own in columns]
        return cls(white=(parts[0], parts[1]), rows=rows, biased=biased)

    @property
    def shapes(self) -> Sequence[tuple[int, int, int]]:
        """Those of a step's parts, (d, m, p + 1)."""
        return [(len(white), self.rows, white.shape[1]) for white in self.white]

    @property
    def start(self) -> Float64:
        """No step at all."""
        return np.zeros(sum(map(prod, self.shapes)))

    def moved(self, start: Constants, step: Float64) -> dict[str, Float64]:
        """Return the constants that lie a step from `start`."""
        found, at, biases = dict[str, Float64](), 0, []
        for name, white, shape in zip((WEIGHT, RECURRENCE), self.white, self.shapes, strict=True):
            moves = step[at : at + prod(shape)].reshape(shape) @ white
            found[name] = start[name] + moves[:, :, : start[name].shape[2]]
            biases.append(moves[:, :, -1])
            at += prod(shape)
        if self.biased:
            found[BIAS] = start[BIAS] + np.concatenate(biases, axis=1)
        return found

    def slope(self, slopes: Constants) -> Float64:
        """Return the gradient by the step, from that by the constants."""
        parts = []
        for place, (name, white) in enumerate(zip((WEIGHT, RECURRENCE), self.white, strict=True)):
            whole = slopes[name]
            if self.biased:
                own = slopes[BIAS][:, place * self.rows : (place + 1) * self.rows, None]
                whole = np.concatenate([whole, own], axis=2)
            parts.append((whole @ white).ravel())
        return np.concatenate(parts)


def _white(seen: Regression, columns: Int64, direction: int, *, biased: bool) -> Float64:
    size = len(columns) + biased
    second = np.eye(size)
    if seen.gram is not None:
        second[: len(columns), : len(columns)] = seen.gram[direction][np.ix_(columns, columns)] / seen.count
        if biased:
            ones = np.zeros((len(seen.squares), seen.columns, len(columns)))
            ones[:, columns, np.arange(len(columns))] = 1.0
            second[-1, :-1] = second[:-1, -1] = seen.sum_output(ones)[direction] / seen.count
    values, vectors = np.linalg.eigh(second + DAMPED * np.trace(second) / size * np.eye(size))
    return np.asarray((vectors / np.sqrt(values)) @ vectors.T)
