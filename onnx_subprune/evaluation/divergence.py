"""How far the outputs of two models are apart, without labels.

Two measures. *Divergence*: the Kullback-Leibler divergence of the softmax where an output is a vector of logits (rank 2, more than one
column), else the relative squared error. *Displacement*: the relative squared error everywhere, of logits about their mean, which the
softmax does not see. Where most samples are classified with confidence the divergence hangs on the few that are not: it takes
many more samples to tell two small changes apart. Rows that are distributions count as the softmax of their logarithms.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from onnx_subprune._typing import Array, Float64

Some = TypeVar("Some", bound=Array)

SAMPLES, COORDINATES = 8, 1 << 22
"""Samples that tell how much an output varies, and numbers of a sample of which the means are taken at most."""
LEAST = 1e-4
"""Of what varies by less than this share of its energy, most may be rounding."""


def divergence(original: Sequence[Mapping[str, Array]], pruned: Sequence[Mapping[str, Array]]) -> float:
    """Return the mean over outputs; both arguments hold one mapping of outputs a chunk."""
    return _mean(original, pruned, _divergence)


def displacement(original: Sequence[Mapping[str, Array]], pruned: Sequence[Mapping[str, Array]]) -> float:
    """Return the mean over outputs; both arguments hold one mapping of outputs a chunk."""
    return _mean(original, pruned, _displacement)


def _mean(
    original: Sequence[Mapping[str, Array]],
    pruned: Sequence[Mapping[str, Array]],
    measure: Callable[[Sequence[Array], Sequence[Array]], float],
) -> float:
    names = [name for name in original[0] if original[0][name].dtype.kind == "f"]
    if not names:
        return 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # where a model leaves its domain the result is no number
        return float(
            np.mean([measure(*_alike([c[name] for c in original], [c[name] for c in pruned])) for name in names])
        )


def _alike(original: Sequence[Array], pruned: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """Return both with zeros where the other has more, as how many there are may depend on what the model finds, and where the first is not finite."""
    pairs = [where_finite(*_padded(a, b)) for a, b in zip(original, pruned, strict=True)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def where_finite(original: Some, pruned: Some) -> tuple[Some, Some]:
    """Return both with zeros where the original is no finite number, as where an input masks a place; they are not compared there."""
    finite = np.isfinite(original)
    if finite.all():
        return original, pruned
    zero = original.dtype.type(0)
    return np.where(finite, original, zero), np.where(finite, pruned, zero)  # type: ignore[return-value]  # types stay


def _padded(first: Array, second: Array) -> tuple[Array, Array]:
    if first.shape == second.shape:
        return first, second
    if first.ndim != second.ndim:
        first, second = first.ravel(), second.ravel()
    whole = np.maximum(first.shape, second.shape)
    one, other = (np.pad(item, [(0, more) for more in whole - item.shape]) for item in (first, second))
    return one, other


def _divergence(original: Sequence[Array], pruned: Sequence[Array]) -> float:
    if _are_logits(original):
        total = sum(_kullback_leibler(a, b) for a, b in zip(original, pruned, strict=True))
        return total / sum(len(a) for a in original)
    return _squared_error(original, pruned)


def _displacement(original: Sequence[Array], pruned: Sequence[Array]) -> float:
    if _are_logits(original):
        return _squared_error([_centered_logits(a) for a in original], [_centered_logits(a) for a in pruned])
    return _squared_error(original, pruned)


def _are_logits(values: Sequence[Array]) -> bool:
    return values[0].ndim == 2 and values[0].shape[1] > 1


def _centered_logits(values: Array) -> Float64:
    logits = _log_probabilities(values)
    return np.asarray(logits - logits.mean(axis=1, keepdims=True))


def _squared_error(original: Sequence[Array], pruned: Sequence[Array]) -> float:
    lost = sum(
        float(np.sum((a.astype(np.float64) - b.astype(np.float64)) ** 2)) for a, b in zip(original, pruned, strict=True)
    )
    energy = _varying(original)
    return lost / energy if energy > 0 else float(lost > 0)


def _varying(values: Sequence[Array]) -> float:
    """The squared distance of an output from its mean over the samples; from zero, where it hardly varies, or samples are few or of different sizes."""
    energy = sum(float(np.sum(a.astype(np.float64) ** 2)) for a in values)
    samples = sum(len(a) for a in values if a.ndim)
    if samples < SAMPLES or len({a.shape[1:] for a in values}) > 1 or values[0][:1].size > COORDINATES:
        return energy
    total = np.sum([a.sum(axis=0, dtype=np.float64) for a in values], axis=0)
    about = energy - float(np.sum(total**2)) / samples
    return about if about > LEAST * energy else energy


def _kullback_leibler(original: Array, pruned: Array) -> float:
    p, q = _log_probabilities(original), _log_probabilities(pruned)
    return float(np.sum(np.exp(p) * (p - q)))


def _log_probabilities(values: Array) -> Float64:
    wide = values.astype(np.float64)
    if np.all(wide >= 0) and np.allclose(wide.sum(axis=1), 1.0, atol=1e-3):
        return np.asarray(np.log(np.maximum(wide, 1e-12)))
    wide = wide - wide.max(axis=1, keepdims=True)
    return np.asarray(wide - np.log(np.sum(np.exp(wide), axis=1, keepdims=True)))
