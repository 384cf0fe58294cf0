"""What a layer loses with the old weights, sliced, summed as it is: an exact zero is one.

From moments the error of weights is a difference of large numbers, with rounding of 1e-6 of the target's energy. A cut that is exact as it is, since
what it drops is dead, would be refitted to that rounding. So where the moments say that next to nothing is lost, the difference between what both
models put out is looked at itself, at every sample and position; of a layer that aims at what its old weights make of its input, it is

    || B_D W_D ||^2  =  tr(W_D' G_DD W_D)          D the columns that are dropped

which is no difference.
"""

from dataclasses import replace

import numpy as np

from onnx_subprune._typing import Mask
from onnx_subprune.calibration.moments.halves import Halves
from onnx_subprune.calibration.moments.regression import Regression
from onnx_subprune.calibration.streaming.target import Aim
from onnx_subprune.reconstruction.fit import Fit, living, plain
from onnx_subprune.reconstruction.layer import Layer
from onnx_subprune.reconstruction.progress import State
from onnx_subprune.reconstruction.task import lost

NEAR = 1e-5
"""Errors, relative to the energy of the target, from which on moments tell how large they are."""
ROUNDED = 8
"""An output that is the same up to so many units in the last place is the same: sums of fewer terms are rounded otherwise."""


class Losses:
    """One layer whose columns `alive` are not dropped. aim: None where that is what the old weights make of its input."""

    def __init__(self, state: State, layer: Layer, aim: Aim | None, alive: Mask) -> None:
        self._state, self._layer, self._aim, self.alive = state, layer, aim, alive

    def sliced(self, halves: Halves) -> Fit | None:
        """Return the old weights, sliced, with what they lose, if that is next to nothing.

        halves: about zero; of the columns that are alone, or of all. The pruned model has these weights then.
        """
        layer, alive = self._layer, self.alive
        if self._aim is None:
            return self._by_columns(halves.whole)
        size = float(halves.whole.energy.sum())
        whole = (
            halves.whole if layer.bias is None else halves.whole.shifted(-layer.inside)
        )  # the target of the old weights alone
        narrow = whole.columns < len(alive) and len(layer.prior) == 1
        prior = layer.prior[:, alive] if narrow else layer.prior
        if narrow:
            whole = living(whole, alive)  # one column is collected where none is alive
        found = plain(whole, prior, alive[alive] if narrow else alive)
        if not found.plain_error * float(whole.energy.sum()) <= max(NEAR, 4.0 * self._least()) * size:
            return None
        kept = np.where(alive.reshape(layer.prior.shape[:2])[:, :, None], layer.prior, 0.0)
        return self._measured(replace(found, weights=kept))

    def better(self, found: Fit, sliced: Fit) -> Fit:
        """Return which of the two loses less; the pruned model has it then."""
        if self._aim is None:
            return found
        error = self._measured(found).fitted_error
        return found if error < sliced.fitted_error else sliced

    def _measured(self, found: Fit) -> Fit:
        """The same with the error that the pruned model really makes."""
        state, aim = self._state, self._aim
        assert aim is not None
        state.take(self._layer, replace(found, exact=True))
        if aim.product is not None:
            offset = self._layer.inside if found.bias is None else found.bias
            aim = replace(aim, product=aim.product.with_now(found.weights, offset))
        short, size = state.whole(lost(self._layer, aim)).energy[0]
        error = float(short / size) if size > 0.0 else float(short > 0.0)
        exact = error <= self._least()
        return replace(found.with_error(error), exact=exact)

    def _by_columns(self, whole: Regression) -> Fit | None:
        """The same for a layer whose inputs are those that its old weights make the target of."""
        prior, alive = self._layer.prior, self.alive.reshape(self._layer.prior.shape[:2])[:, :, None]
        short = float(whole.with_target(np.where(alive, 0.0, prior)).energy.sum())
        error, size = short, float(whole.energy.sum())
        if size > 0.0:
            error = max(0.0, short / size)
        if error > self._least():
            return None
        return replace(Fit.unchanged(np.where(alive, prior, 0.0)).with_error(error), exact=True)

    def _least(self) -> float:
        dtype = self._state.task.network.array(self._layer.contraction.weight_tensor).dtype
        eps = np.finfo(np.float16 if dtype == np.float16 else np.float32).eps
        return float(ROUNDED * eps) ** 2
