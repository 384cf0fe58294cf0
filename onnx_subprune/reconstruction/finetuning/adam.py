"""Adam, with a step size that falls along a half wave."""

from collections.abc import Mapping
from math import cos, pi

import numpy as np

from onnx_subprune._typing import Array, Float32

FIRST, SECOND, EPSILON = 0.9, 0.999, 1e-8


class Adam:
    """Weights that move; `weights` are views of them by name, which change in place."""

    def __init__(self, weights: Mapping[str, Float32]) -> None:
        self.sizes = {name: value.size for name, value in weights.items()}
        self.flat: Float32 = np.concatenate([value.ravel() for value in weights.values()])
        ends = np.cumsum([*self.sizes.values()]).tolist()
        self.weights = {
            name: self.flat[end - value.size : end].reshape(value.shape)
            for (name, value), end in zip(weights.items(), ends, strict=True)
        }
        self._first, self._second = np.zeros_like(self.flat), np.zeros_like(self.flat)
        self._steps = 0

    def step(self, gradients: Mapping[str, Array], rate: float) -> bool:
        """Move against `gradients`; nothing moves, and False is returned, where these are no finite numbers."""
        slope = np.concatenate([np.asarray(gradients[name], np.float32).ravel() for name in self.sizes])
        if not np.isfinite(slope).all():
            return False
        self._steps += 1
        self._first += (1 - FIRST) * (slope - self._first)
        self._second += (1 - SECOND) * (slope * slope - self._second)
        first, second = 1 - FIRST**self._steps, 1 - SECOND**self._steps
        self.flat -= (
            np.float32(rate / first) * self._first / (np.sqrt(self._second / np.float32(second)) + np.float32(EPSILON))
        )
        return True

    def restart(self, flat: Float32) -> None:
        """Begin again from these weights."""
        self.flat[...] = flat
        self._first[...] = 0
        self._second[...] = 0
        self._steps = 0


def falling(rate: float, share: float) -> float:
    """Return the step size when this share of the time is over."""
    return rate * 0.5 * (1 + cos(pi * min(share, 1.0)))
