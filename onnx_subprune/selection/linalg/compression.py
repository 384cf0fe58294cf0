"""A few directions of each channel in place of its many columns: selection among channels whose filters are long.

An elimination of p columns takes p^3. A channel with b columns that are read together (64 taps of a filter) has few directions that tell anything of
the target: in coordinates in which its own gram is the identity, those in which the target lies (C) and those in which the weights lie now (W). With
an orthonormal basis P of the foremost of both,

    G -> P'G P        C -> P'C

What is explained is explained by the columns too, so errors become no smaller than they are.
"""

import numpy as np

from onnx_subprune._typing import Float64, Weights
from onnx_subprune.selection.linalg.lowrank import Gram, LowRank
from onnx_subprune.selection.linalg.ridge import scales

DAMPING = 1e-7
"""Added to the gram of a channel, columns scaled to an energy of about 1."""
LONG, WIDE = 16, 4096
"""Columns of a channel from which on, and columns in all beyond which, directions take their place."""
COLUMNS = 2048
"""About so many of them in all: with 8 of 32 a channel, what was chosen explained as much to four digits on drawn
problems; errors on the way are too large by then."""


def is_wide(gram: Gram, columns: int, block: int) -> bool:
    """True if channels of `block` columns, so many in all, are to be seen in a few directions."""
    return not isinstance(gram, LowRank) and block >= LONG and columns > WIDE


def compressed(gram: Float64, cross: Float64, prior: Weights, block: int) -> tuple[Float64, Float64, int]:
    """Return gram, cross and the size of a block with about `COLUMNS` columns in all. gram: (w*b, w*b), cross, prior: (w*b, m)."""
    width = len(gram) // block
    kept = max(1, min(block, COLUMNS // width))
    bases = np.empty((width, block, kept))
    scale = scales(gram).reshape(width, block, 1)
    for number, factor in enumerate(scale):
        own = slice(number * block, (number + 1) * block)
        even = gram[own, own] * factor * factor.T
        bases[number] = factor * _foremost(even, factor * cross[own], prior[own], factor, kept)
    half = np.empty((len(gram), width * kept))
    for number, basis in enumerate(bases):
        half[:, number * kept : (number + 1) * kept] = gram[:, number * block : (number + 1) * block] @ basis
    turned = bases.transpose(0, 2, 1)
    smaller = (turned @ half.reshape(width, block, -1)).reshape(width * kept, -1)
    return smaller, (turned @ cross.reshape(width, block, -1)).reshape(width * kept, -1), kept


def _foremost(gram: Float64, cross: Float64, prior: Weights, scale: Float64, kept: int) -> Float64:
    """A basis (b, kept) of the directions of one channel, in scaled coordinates; they are orthonormal in its gram."""
    values, vectors = np.linalg.eigh(gram)  # rounding may have left it indefinite
    roots = np.sqrt(np.maximum(values, 0.0) + DAMPING)[:, None]
    root, inverse = roots * vectors.T, vectors.T / roots
    weights = np.divide(prior, scale, out=np.zeros(prior.shape), where=scale > 0.0)
    parts = [side / norm for side in (inverse @ cross, root @ weights) if (norm := float(np.linalg.norm(side))) > 0.0]
    if not parts:
        return np.asarray(inverse.T[:, :kept])
    together = np.hstack(parts)
    return np.asarray(inverse.T @ np.linalg.eigh(together @ together.T)[1][:, ::-1][:, :kept])
