"""Samples that verification looks at."""

from collections.abc import Iterator, Mapping

import numpy as np

from onnx_subprune._typing import Array, Int64
from onnx_subprune.calibration.data.holdout import spread
from onnx_subprune.calibration.data.samples import Calibration

CHECKED, RUNS, POOL = 4, 2, 64
"""Samples that are spread over the data, of those that are fed run by run, and of those that others are drawn from."""


def spread_feeds(data: Calibration) -> Iterator[Mapping[str, Array]]:
    """Yield what runs on samples that are spread over the data are fed: one run on `CHECKED` of them or on a batch that the model insists on, or `RUNS`."""
    if data.runs:
        some = data.at(spread(data.samples, min(RUNS, data.samples)))
        yield from some.chunks()
    else:
        count = data.fixed or min(CHECKED, data.samples)
        yield data.at(spread(data.samples, count)).feeds(count)


def drawn_feeds(data: Calibration) -> Mapping[str, Array]:
    """Return what a run is fed whose every element comes from another sample at the same place, floating-point numbers with noise.

    So what data do not show is seen too: a corner that is always dark, two inputs that always agree.
    """
    generator = np.random.default_rng(0)
    if data.ragged:
        return _noisy(data, generator)
    count = 1 if data.runs else data.fixed or min(CHECKED, data.samples)
    pool = data.at(spread(data.samples, min(POOL, data.samples)))
    feeds = {name: _drawn(pool.all_of(name), count, generator) for name in pool.arrays}
    return {name: value[0, ...] if data.runs else value for name, value in feeds.items()} | dict(data.shared)


def _noisy(data: Calibration, generator: np.random.Generator) -> Mapping[str, Array]:
    """What one of runs of different sizes is fed, with noise: the others have no elements at the same places to draw from."""
    feeds = {name: data.one(name, data.samples // 2)[None] for name in data.arrays}
    return {name: _drawn(value, 1, generator)[0] for name, value in feeds.items()} | dict(data.shared)


def _drawn(values: Array, count: int, generator: np.random.Generator) -> Array:
    places: Int64 = generator.integers(len(values), size=(count, *values.shape[1:]))
    drawn = np.take_along_axis(values, places, axis=0)
    if values.dtype.kind != "f":
        return drawn
    scale = float(np.std(values.astype(np.float64))) or 1.0
    return (drawn.astype(np.float64) + scale * generator.standard_normal(drawn.shape)).astype(values.dtype)


def last_digit(value: Array, generator: np.random.Generator) -> Array:
    """Return a value with floating-point numbers a step up or down."""
    if value.dtype.kind != "f":
        return value
    ends = np.where(generator.random(value.shape) < 0.5, -np.inf, np.inf).astype(value.dtype)
    return np.asarray(np.nextafter(value, ends))
