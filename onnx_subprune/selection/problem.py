"""The problem a selector solves: which channels of a consumer's input to keep, on its moments.

With B (n x p) the unrolled input of a consumer and T (n x m) its target, everything the selection needs is

    gram  G = B'B  (p x p)        cross  C = B'T  (p x m)        energy  e = ||T||^2

F(S) = tr(C_S' G_S^+ C_S) is the energy that the channels in S explain with their best weights, and the error is e - F(S)
(El Halabi, Srinivas, Lacoste-Julien, NeurIPS 2022, section 3). A channel owns `block` columns; columns that no channel
owns are *fixed*: they belong to channels outside the group and stay, so they are projected out once, by a Schur complement.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
Support = tuple[int, ...]
"""Kept channels: sorted, unique."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One consumer's least-squares problem over the channels of one group.

    gram: (p, p) float64, symmetric positive semi-definite.
    cross: (p, m) float64.
    energy: squared norm of the target, on the same scale as `gram`.
    columns: (w, b) int64, the columns of `gram` that each of the w channels owns; the rest are fixed.
    prior: (p, m) float64, the current weights of the consumer (what no refit would use).
    weight: importance of this consumer beside the others of its group.
    """

    gram: Array
    cross: Array
    energy: float
    columns: IntArray
    prior: Array
    weight: float = 1.0

    @property
    def width(self) -> int:
        """Number of channels to choose from."""
        return int(self.columns.shape[0])
