"""Forward selection: the paper's greedy, by blocks, on moments (El Halabi et al., NeurIPS 2022, algorithm 1)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from onnx_subprune._typing import Int64
from onnx_subprune.errors import typed_fields
from onnx_subprune.selection.linalg.compression import compressed, is_wide
from onnx_subprune.selection.linalg.elimination import Elimination
from onnx_subprune.selection.linalg.lowrank import LowRank
from onnx_subprune.selection.problem import Problem
from onnx_subprune.selection.selector import Choice, level, pick, presence_of


@typed_fields
@dataclass(frozen=True, slots=True)
class Forward:
    """Add the channel with the largest gain until there are enough; one sweep gives the whole nested path.

    brief: channels of long filters are seen in a few directions where there are very many columns; the errors are upper bounds then.
    """

    brief: bool = field(default=False, repr=False)

    def path(
        self, problems: Sequence[Problem], sizes: Sequence[int], cells: Int64, threads: int = 1
    ) -> tuple[Choice, ...]:
        """See `Selector`. The gain of a channel is the share of each consumer's energy that it newly explains."""
        states, scales, left = [], [], []
        total = sum(problem.weight for problem in problems)
        for problem in problems:
            gram, cross, energy = problem.reduced()
            block = problem.block
            if self.brief and is_wide(gram, len(gram), block):
                assert not isinstance(gram, LowRank)
                gram, cross, block = compressed(gram, cross, problem.prior[problem.columns.ravel()], block)
            states.append(Elimination(gram, cross, block, threads))
            scales.append(problem.weight / total / problem.energy if problem.energy > 0 else 0.0)
            left.append(max(energy, 0.0) * scales[-1])
        presence, chosen = presence_of(problems), np.zeros(problems[0].width, bool)
        error = sum(left)
        found: dict[int, Choice] = {0: Choice((), error)}
        for size in range(1, max(sizes) + 1):
            gains = sum(scale * state.gains() for scale, state in zip(scales, states, strict=True))
            best = pick(np.asarray(gains), level(cells, chosen), largest=True, presence=presence)
            error = max(0.0, error - float(np.asarray(gains)[best]))
            chosen[best] = True
            for state in states:
                state.eliminate(best)
            found[size] = Choice(tuple(np.flatnonzero(chosen).tolist()), error)
        return tuple(found[size] for size in sizes)
