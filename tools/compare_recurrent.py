r"""Compare ways to choose the units of recurrent layers, each with a refit of its own, on labelled test data; nothing is fine-tuned.

    python tools/compare_recurrent.py models/gru_fashion.onnx --data models/fashion_calibration.npz --test models/fashion_test.npz \
        --labels models/fashion_test_labels.npy --channels 0.5 0.25 --only '/gru/*'

Takes what `compare_methods.py` takes. Weights, norms of activations, and chance choose for the refits of this package; spectral pruning (Furuya et al.,
AISTATS 2022) has its own: units whose states explain the states of all best, on the average over steps, and the matrix that reconstructs
these from those, by which every weight that reads them is multiplied. That is least squares on the states of the original.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from onnx_subprune import Layerwise
from onnx_subprune._typing import Int64
from onnx_subprune.selection import Choice, Forward, Problem
from tools.compare_methods import main
from tools.rows import PLAIN, Method, Row


@dataclass(frozen=True, slots=True)
class Spectral:
    """Forward selection of the units that explain all units' states, whatever reads them."""

    def path(
        self, problems: Sequence[Problem], sizes: Sequence[int], cells: Int64, threads: int = 1
    ) -> tuple[Choice, ...]:
        """See `onnx_subprune.selection.Selector`."""
        states = []
        for problem in problems:
            every = np.arange(len(problem.gram))
            gram = problem.gram[np.ix_(every, every)]
            states.append(
                replace(problem, gram=gram, cross=gram, energy=float(np.trace(gram)), prior=np.eye(len(gram)))
            )
        return Forward().path(states, sizes, cells, threads)


ROWS: dict[str, Row] = {
    "ours (the default)": Method(selector="refined"),
    "forward selection, our refit": Method(selector="forward"),
    "spectral, its own refit": Method(selector=Spectral(), formulation=Layerwise(), refit=PLAIN),
    "spectral, our refit": Method(selector=Spectral()),
    "weight norm, our refit": Method(selector="weight-norm"),
    "L2 norm of activations, our refit": Method(selector="activation-norm"),
    "random, our refit": Method(selector="random"),
    "weight norm, no refit": Method(selector="weight-norm", formulation=Layerwise(), refit=None),
    "ours, no refit": Method(selector="refined", formulation=Layerwise(), refit=None),
}
"""By the name in the table."""

if __name__ == "__main__":
    main(known=ROWS)
