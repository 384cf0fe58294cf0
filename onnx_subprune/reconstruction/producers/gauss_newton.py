"""The step of a layer towards what its reader still puts out wrong.

That of Gauss and Newton, with a Kronecker product for the curvature (Martens and Grosse, "Optimizing Neural Networks with
Kronecker-factored Approximate Curvature", ICML 2015); between two layers it is nothing but least squares:

    D = (X'X + lam I)^-1  X'g  (S + mu I)^-1,    g = J' residual,    S = mean of J'J over positions

X are the inputs of the layer, J the derivative of the reader's output with respect to the layer's. `reach` says how far to go along D.
"""

from dataclasses import dataclass

import numpy as np

from onnx_subprune._typing import Float64, Mask
from onnx_subprune.calibration.moments.moments import Moments
from onnx_subprune.selection.linalg.ridge import Solver, factorized

DAMPING = 1e-2
"""mu, as a share of the mean of the diagonal that it is added to. That of lam is the number of columns for a row: fewer rows, shorter steps."""
FARTHEST = 2.0
"""No step is longer than this."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """A direction: weights (g, p, m) and bias (g, m), None where there is no place for one; slope: how fast half the energy falls along it."""

    weights: Float64
    bias: Float64 | None
    slope: float


def direction(
    moments: Moments, gram: Float64, curvature: Float64, alive: Mask, *, free_bias: bool, threads: int = 1
) -> Step:
    """Return D of the module for the gradients that are the target of `moments`.

    gram: X'X, (g, p, p), about the means with `free_bias`; that of `moments` is not looked at. curvature: S, (g * m, g * m).
    alive: (g, p), False for inputs that have been dropped; `moments` and `gram` may be without them.
    """
    cross = moments.cross
    if free_bias:
        cross = cross - moments.sum_input[:, :, None] * moments.sum_target[:, None, :] / moments.count
    groups, p = alive.shape
    m = cross.shape[2]
    back = _inverse(curvature, DAMPING, threads)(np.eye(len(curvature)))
    weights, bias, slope = np.zeros((groups, p, m)), np.zeros((groups, m)), 0.0
    for g in range(groups):
        mine, left = slice(g * m, (g + 1) * m), np.flatnonzero(alive[g])
        if not left.size:
            continue
        inside = left if cross.shape[1] == p else np.arange(len(left))
        living = gram[g] if len(left) == gram.shape[1] else gram[g][np.ix_(left, left)]
        found = _inverse(living, len(left) / moments.count, threads)(cross[g][inside])
        shift = (moments.sum_target[g] - moments.sum_input[g][inside] @ found) / moments.count
        weights[g][left] = found = found @ back[mine, mine]
        slope += float(np.sum(found * moments.cross[g][inside]))
        if free_bias:
            bias[g] = shift @ back[mine, mine]
            slope += float(bias[g] @ moments.sum_target[g])
    return Step(weights=weights, bias=bias if free_bias else None, slope=slope)


def _inverse(gram: Float64, strength: float, threads: int) -> Solver:
    """Return what solves for the gram with a share of its mean energy added; zeros where that is nothing."""
    energy = float(np.mean(np.diagonal(gram)))
    if energy <= 0.0:
        return np.zeros_like
    damped = gram.copy()
    damped[np.diag_indices(len(gram))] += strength * energy
    return factorized(damped, threads)


def reach(before: float, slope: float, after: float) -> float:
    """Return how far to go for the lowest point of a parabola that has value and slope at 0, and a value at 1; 0 for not at all.

    loss(t) = before - 2 t slope + t^2 curvature.
    """
    curvature = after - before + 2.0 * slope
    if slope <= 0.0:
        return 0.0
    return min(slope / curvature, FARTHEST) if curvature > 0.0 else FARTHEST
