"""How far the outputs of two models are apart, without labels.

Kullback-Leibler divergence of the softmax where an output is a vector of logits (rank 2, more than one column), else the relative
squared error. Rows that are distributions already are taken as they are.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Float64 = NDArray[np.float64]


def divergence(original: Sequence[Mapping[str, Array]], pruned: Sequence[Mapping[str, Array]]) -> float:
    """Return the mean over outputs; both arguments hold one mapping of outputs a chunk."""
    names = [name for name in original[0] if original[0][name].dtype.kind == "f"]
    if not names:
        return 0.0
    return float(np.mean([_one([c[name] for c in original], [c[name] for c in pruned]) for name in names]))


def _one(original: Sequence[Array], pruned: Sequence[Array]) -> float:
    if original[0].ndim == 2 and original[0].shape[1] > 1:
        total = sum(_kullback_leibler(a, b) for a, b in zip(original, pruned, strict=True))
        return total / sum(len(a) for a in original)
    lost = sum(
        float(np.sum((a.astype(np.float64) - b.astype(np.float64)) ** 2)) for a, b in zip(original, pruned, strict=True)
    )
    energy = sum(float(np.sum(a.astype(np.float64) ** 2)) for a in original)
    return lost / energy if energy > 0 else float(lost > 0)


def _kullback_leibler(original: Array, pruned: Array) -> float:
    p, q = _log_probabilities(original), _log_probabilities(pruned)
    return float(np.sum(np.exp(p) * (p - q)))


def _log_probabilities(values: Array) -> Float64:
    wide = values.astype(np.float64)
    if np.all(wide >= 0) and np.allclose(wide.sum(axis=1), 1.0, atol=1e-3):
        return np.asarray(np.log(np.maximum(wide, 1e-12)))
    wide = wide - wide.max(axis=1, keepdims=True)
    return np.asarray(wide - np.log(np.sum(np.exp(wide), axis=1, keepdims=True)))
