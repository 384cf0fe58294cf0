"""How good a model is at what it was made for: accuracy, perplexity, signal to noise ratio."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Array = npt.NDArray[np.generic]


def hits(logits: Array, labels: Array) -> Numbers:
    """Tell for each sample whether its class has the highest of the logits (N, classes)."""
    return np.asarray(logits.argmax(axis=-1) == labels, np.float64)


def surprise(logits: Array, labels: Array) -> Numbers:
    """Return for each sample the mean over its positions of -log p(label), from logits (N, tokens, vocabulary)."""
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    own = np.take_along_axis(logits, labels[..., None], -1)[..., 0]
    return np.asarray((np.log(np.exp(logits).sum(-1)) - own).mean(-1), np.float64)


def decibels(pictures: Array, wanted: Array) -> Numbers:
    """Return for each picture (N, 3, height, width), clipped to 0 to 255, its peak signal to noise ratio."""
    squares = (np.clip(pictures.astype(np.float64), 0, 255) - wanted) ** 2
    return np.asarray(10 * np.log10(255**2 / squares.mean((1, 2, 3))), np.float64)


@dataclass(frozen=True)
class Measure:
    """One number a sample, what their mean says, how it is printed, and how a loss is."""

    each: Callable[[Array, Array], Numbers]
    sum_up: Callable[[Numbers], float]
    shown: str
    lost: Callable[[float, float], float]
    lost_shown: str


ACCURACY = Measure(hits, lambda x: 100 * float(x.mean()), "{:.2f}%", lambda a, b: a - b, "{:.2f} points")
PERPLEXITY = Measure(
    surprise, lambda x: float(np.exp(x.mean())), "{:.3f}", lambda a, b: b / a, "{:.3f} of the perplexity"
)
PSNR = Measure(decibels, lambda x: float(x.mean()), "{:.2f} dB", lambda a, b: a - b, "{:.3f} dB")
