"""Which tensors hold the samples of a run one after another on their first axis, each with so many rows.

An axis that grows with the batch need not: of (time, samples) made one, the rows of a sample lie apart, and steps of a recurrence are no samples. So
the model is run on two samples and on each of them alone, and a tensor counts if its rows are the same.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from onnx_subprune._typing import Float64
from onnx_subprune.errors import SubpruneError
from onnx_subprune.graph.network import Network
from onnx_subprune.runtime.observing import Observed
from onnx_subprune.runtime.signatures import Signatures

Feeds = Mapping[str, NDArray[np.generic]]

TOLERANCE = 1e-3
"""Largest difference of two sums of a row that are the same but for rounding."""
HALF = 1e-2
"""The same where there are numbers of 16 bits."""
DISTINCT = 1e-2
"""Sums of all rows differ by at least this share where they tell anything."""


def rows_of(
    network: Network, two: Feeds, each: tuple[Feeds, Feeds], seen: tuple[Mapping[str, Observed], Mapping[str, Observed]]
) -> Mapping[str, int]:
    """Return by tensor how many rows a sample has on the first axis; 0: it is the same however many samples there are.

    two, each: feeds of two samples, and of each alone. seen: what the tensors look like in the run on both, and on the first. What is not
    named holds something else.
    """
    found: dict[str, int] = {}
    guesses: dict[str, int] = {}
    for name, item in seen[0].items():
        other = seen[1].get(name)
        if other is None:
            continue
        if item.value is not None and _equal(item.value, other.value):
            found[name] = 0
        elif (count := _guess(item, other)) is not None:
            guesses[name] = count
    try:
        sums = Signatures(network.proto, list(guesses), network.folder)
        both, first, second = sums(two), sums(each[0]), sums(each[1])
    except SubpruneError:  # an operator that does not run on something here
        return found
    half = any(item.dtype == np.float16 for item in seen[0].values())
    tolerance = HALF if half else TOLERANCE
    return found | {
        name: count
        for name, count in guesses.items()
        if _same(both[name], (first[name], second[name]), count, tolerance)
    }


def _equal(value: NDArray[np.generic], other: NDArray[np.generic] | None) -> bool:
    return other is not None and value.shape == other.shape and bool(np.array_equal(value, other))


def _guess(two: Observed, one: Observed) -> int | None:
    """The rows of a sample, by the shapes; None if that cannot be."""
    if two.dtype.kind not in "fiub" or not two.shape or not two.shape[0] or not one.shape:
        return None
    if two.shape == one.shape:
        return 0
    return one.shape[0] if two.shape == (2 * one.shape[0], *one.shape[1:]) else None


def _same(both: Float64, each: tuple[Float64, Float64], count: int, tolerance: float) -> bool:
    """True if each sample's rows have the same sums in both runs; several rows of a sample must be told apart by them."""
    if not count:
        return _close(both, each[0], tolerance)
    if each[0].shape != each[1].shape:
        return False
    with np.errstate(invalid="ignore"):
        apart = bool(np.any(np.ptp(both, axis=0) > DISTINCT * np.max(np.abs(both), axis=0)))
    return _close(both, np.concatenate(each), tolerance) and (count == 1 or apart)


def _close(sums: Float64, others: Float64, tolerance: float) -> bool:
    with np.errstate(invalid="ignore"):
        close = np.abs(sums - others) <= tolerance * np.maximum(np.abs(sums), np.abs(others)) + 1e-12
    return bool(np.all(close | (sums == others) | (np.isnan(sums) & np.isnan(others))))
