"""A network of one layer: what its output loses when channels are gated follows from the moments."""

import numpy as np

from onnx_subprune.selection import ProbingSelector, ranked


def probe_of(problems):
    """The probe of a network that is nothing but these consumers: their relative squared errors with gated weights."""

    def probe(gates):
        losses = np.zeros(len(gates))
        for problem in problems:
            for row, gate in enumerate(gates):
                weights = problem.prior.copy()
                weights[problem.columns] *= gate[:, None, None]
                lost = weights - problem.prior
                losses[row] += np.sum(lost * (problem.gram @ lost)) / max(problem.energy, 1e-300)
        return losses

    return probe


def path(selector, problems, sizes, cells):
    """The selector's choices, whichever way it is asked."""
    if isinstance(selector, ProbingSelector):
        return ranked(problems, selector.scores(probe_of(problems), cells, max(sizes)), sizes, cells)
    return selector.path(problems, sizes, cells)
