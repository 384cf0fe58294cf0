"""Columns of a contraction's weight that belong to channels, and the problem that they pose."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onnx_subprune._typing import Float64, Mask, Weights
from onnx_subprune.calibration.moments.regression import Regression
from onnx_subprune.graph.channels import Axis, ChannelGraph, Consumer, Contraction, Use
from onnx_subprune.graph.contractions.kernel import Kernel
from onnx_subprune.selection import Choice, Problem

AGAIN = 3.0
"""How much more an error of what a recurrent layer makes of its units counts than its square, seen at one step, says: see `gate_importance`."""


def alive_columns(
    graph: ChannelGraph, choices: Mapping[str, Choice], contraction: Contraction, kernel: Kernel, weights: Weights
) -> Mask:
    """Mask (g * p,) of the columns whose channels have not been dropped."""
    alive = np.ones(weights.shape[0] * weights.shape[1], bool)
    alive[kernel.columns_of(dropped_channels(graph, choices, contraction.rows))] = False
    return alive


def dropped_channels(graph: ChannelGraph, choices: Mapping[str, Choice], axis: Axis) -> NDArray[np.int64]:
    """Return the positions on `axis` that have been dropped."""
    found = [np.zeros(0, np.int64)]
    for group in graph.groups:
        if group.name in choices:
            gone = np.setdiff1d(np.arange(group.width), np.array(choices[group.name].support, np.int64))
            found += [part.positions[gone].ravel() for part in group.slices if part.axis == axis]
    return np.concatenate(found)


def problem_of(
    consumer: Consumer,
    kernel: Kernel,
    moments: Regression,
    weights: Weights,
    alive: Mask,
    shrinkage: float = 0.0,
    importance: Float64 | None = None,
) -> Problem:
    """Return the problem that one consumer poses for its group.

    weights: (g, p, m), the current ones. alive: (g * p,), False for columns of channels that other groups have dropped.
    shrinkage: see `Regression.problem`. importance: (g, m), what each target counts, which is input times weights then; None for all alike.
    """
    if importance is not None:
        weights = weights * importance[:, None, :]
        moments = moments.with_target(weights)
    columns = kernel.columns_of(consumer.positions)
    left = np.flatnonzero(alive)
    return moments.problem(columns if alive.all() else np.searchsorted(left, columns), weights, left, shrinkage)


def weighed(
    problems: Sequence[Problem],
    consumers: Sequence[Consumer],
    counts: Sequence[float],
    importance: Mapping[Use, Float64],
) -> list[Problem]:
    """Return the problems of a group, one for each of `consumers`, with the weights that these have beside each other.

    counts: rows that each was seen with. Where channels come back a step later, each counts as often as it reads them: what the recurrence loses adds
    up over all the steps, what a reader of the last state loses is lost once. importance: see `gate_importance`; where that of a recurrence is known, all
    errors have one unit, and count as they are, or alike where there is nothing to lose: units that are constant.
    """
    recurring = [consumer for consumer in consumers if consumer.contraction.recurs]
    if not recurring:
        return [*problems]
    most, scaled = max(counts), all(consumer.weight in importance for consumer in recurring)
    sizes = [1.0] * len(problems)
    if scaled and any(problem.energy > 0.0 for problem in problems):
        again = (AGAIN if consumer.contraction.recurs else 1.0 for consumer in consumers)
        sizes = [max(problem.energy, 0.0) * times for problem, times in zip(problems, again, strict=True)]
    parts = zip(problems, sizes, counts, strict=True)
    return [replace(problem, weight=size * count / most) for problem, size, count in parts]
