"""The bases of `bases`, from second moments of each head, and whether they lose less than a subset of the numbers does on other samples.

What a head of the right side reads a number with counts as its moments too: W_o W_o' beside those of the context.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnx_subprune._typing import Array, Float64, Int64
from onnx_subprune.graph.channels import Slice
from onnx_subprune.selection import Forward, Problem

SHARES = (0.25, 0.5, 0.75)
"""Shares of the numbers at which a basis is compared with a subset."""
FLOOR = 1e-6
"""Least eigenvalue of a second moment, as a share of the largest: more of what is less is rounding."""
WIDEST = 1024
"""Numbers beyond which a basis costs more than all else: 7 s for 1024, and as their cube."""


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """Bases of the left and of the right side, (r, w, w) each, with left right' = 1; the most important numbers come first."""

    left: Float64
    right: Float64

    def kept(self, count: int) -> Float64:
        """(r, w, w), what the first numbers keep of the left side where the right one has its own."""
        return np.asarray(self.left[:, :, :count] @ self.right[:, :, :count].transpose(0, 2, 1))


def factors(left: Float64, right: Float64) -> Factors:
    """Return the bases whose first numbers keep most of the product of sides with these second moments, (r, w, w) each.

    A number that is always zero on one side stays as it is, and comes last.
    """
    bases = np.zeros((2, *left.shape))
    for head, (a, b) in enumerate(zip(left, right, strict=True)):
        live = np.flatnonzero((np.diagonal(a) > 0) & (np.diagonal(b) > 0))
        dead, inside = np.setdiff1d(np.arange(len(a)), live), np.ix_(live, np.arange(len(live)))
        bases[:, head, dead, np.arange(len(live), len(a))] = 1.0
        if len(live):
            bases[0, head][inside], bases[1, head][inside] = _balanced(a[np.ix_(live, live)], b[np.ix_(live, live)])
    return Factors(bases[0], bases[1])


def pooled(moments: Float64, shared: int) -> Float64:
    """Return the sums of moments of so many heads each, one after another, which have one basis."""
    return np.asarray(moments.reshape(-1, shared, *moments.shape[1:]).sum(axis=1))


def in_basis(value: Array, part: Slice, basis: Float64) -> Array:
    """Return `value` with the numbers of every head times its `basis`, (r, w, w)."""
    moved = np.moveaxis(value.astype(np.float64), part.axis.index, 0)
    for head, places in enumerate(part.positions.T):
        moved[places] = np.tensordot(basis[head].T, moved[places], axes=1)
    return np.ascontiguousarray(np.moveaxis(moved, 0, part.axis.index).astype(value.dtype))


def wins(sides: Sequence[tuple[Float64, Float64]], *, refitted: bool, shared: int = 1) -> bool:
    """True if a basis loses less than a subset of the numbers, both from one half of the samples and judged on the other.

    sides: moments of the left and the right side on each half. refitted: what reads the left side is fitted to what is kept. shared: heads that have
    one basis.
    """
    lost = np.zeros(2)
    for own, other in ((sides[0], sides[1]), (sides[1], sides[0])):
        basis, width = factors(*(pooled(side, shared) for side in own)), own[0].shape[1]
        counts = [max(1, round(share * width)) for share in SHARES]
        for count, subset in zip(counts, _subsets(*own, counts, refitted=refitted), strict=True):
            kept = np.repeat(basis.kept(count), shared, axis=0)
            lost += [_loss(*other, kept), _loss(*other, subset)]
    return bool(lost[0] < lost[1])


def _balanced(left: Float64, right: Float64) -> tuple[Float64, Float64]:
    """The bases of one head, (w, w) each, with as much of a number on the left as on the right."""
    (root, inverse), (other_root, other_inverse) = _roots(left), _roots(right)
    p, s, r = np.linalg.svd(root @ other_root)
    scale = np.sqrt(np.maximum(s, 1e-12 * s[0]))
    return inverse @ (p * scale), other_inverse @ (r.T * scale)


def _roots(moment: Float64) -> tuple[Float64, Float64]:
    values, vectors = np.linalg.eigh(moment)
    root = np.sqrt(np.maximum(values, FLOOR * values[-1]))
    return (vectors * root) @ vectors.T, (vectors / root) @ vectors.T


def _subsets(left: Float64, right: Float64, counts: Sequence[int], *, refitted: bool) -> list[Float64]:
    """(r, w, w) each, what subsets of so many numbers, the same of every head, keep of the left side."""
    heads, width, _ = left.shape
    if not refitted:
        strengths = (np.diagonal(left, axis1=1, axis2=2) * np.diagonal(right, axis1=1, axis2=2)).sum(axis=0)
        order = np.argsort(-strengths, kind="stable")
        return [
            np.repeat(np.diag(np.isin(np.arange(width), order[:count]) * 1.0)[None], heads, axis=0) for count in counts
        ]
    problems = [_problem(a, b) for a, b in zip(left, right, strict=True)]
    found = []
    for choice in Forward().path(problems, counts, np.zeros(width, np.int64)):
        own, kept = np.array(choice.support, np.int64), np.zeros((heads, width, width))
        for head, gram in enumerate(left):
            kept[head][own] = np.linalg.lstsq(gram[np.ix_(own, own)], gram[own], rcond=1e-9)[0]
        found.append(kept)
    return found


def _problem(gram: Float64, target: Float64) -> Problem:
    root = _roots(target)[0] if np.any(target) else target
    columns: Int64 = np.arange(len(gram))[:, None]
    energy = float(np.sum(gram * target))
    return Problem(gram=gram, cross=gram @ root, energy=energy, columns=columns, prior=root)


def _loss(left: Float64, right: Float64, kept: Float64) -> float:
    """How much of the product is lost, as a share, if `kept`, (r, w, w), is what is left of the left side."""
    gone = np.eye(left.shape[1]) - kept
    lost = np.sum((gone.transpose(0, 2, 1) @ left @ gone) * right)
    return float(lost / max(float(np.sum(left * right)), 1e-300))
