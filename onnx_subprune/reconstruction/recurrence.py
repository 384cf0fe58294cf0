"""The weights of recurrent layers are refitted towards the gates of the original: W on what the layer reads, R on its units a step before.

What R reads follows from R. So it is first fitted on the states that the original has at the units which are left; then, as errors add up over the
steps, on those that the pruned layer has with the weight so far. The weight with which the layer puts out least wrong, run over whole sequences,
stays, and that may be the old one, sliced.
"""

from dataclasses import replace

import numpy as np

from onnx_subprune._typing import Float64
from onnx_subprune.calibration.moments.regression import Regression
from onnx_subprune.calibration.streaming.executor import united
from onnx_subprune.calibration.streaming.original import Original
from onnx_subprune.calibration.streaming.product import Product
from onnx_subprune.calibration.streaming.request import Ask, What
from onnx_subprune.calibration.streaming.target import Aim
from onnx_subprune.graph.contractions.contraction import Kernel, Kind
from onnx_subprune.reconstruction.columns import dropped_channels
from onnx_subprune.reconstruction.fit import Fit, Known, fit
from onnx_subprune.reconstruction.layer import Layer
from onnx_subprune.reconstruction.progress import State
from onnx_subprune.reconstruction.requests import aimed
from onnx_subprune.reconstruction.settings import Refitted

ROUNDS = 3
"""Fits in all, the first on the original's states."""
WORTH = 0.05
"""A further round follows one that took away this share of what is wrong."""
EXACT = 1e-12
"""Less than this share of the states' energy is rounding: the weight stays as it is."""


def gates_of(original: Original, layer: Layer) -> Aim:
    """Return the aim of a weight of a recurrent layer: the gates that the original has, as far as they are left."""
    contraction, network = layer.contraction, original.network
    node, left = network.node(contraction.node), original.rows.get(contraction.weight)
    weight = network.array(node.input[contraction.weight.slot])
    weight = weight if left is None else weight[:, left]
    kernel = Kernel.from_node(node, weight.shape, contraction.weight.slot)
    matrix = kernel.to_matrix(weight)
    offset = np.zeros((matrix.shape[0], matrix.shape[2]))
    if layer.bias is not None and layer.bias.half is not None:
        bias = network.array(node.input[layer.bias.use.slot]).astype(np.float64)
        mine = bias.reshape(len(bias), 2, -1)[:, layer.bias.half]
        offset = (mine if left is None else mine[:, left]).reshape(offset.shape)
    product = Product(kernel=kernel, weights=matrix, offset=offset)
    none = np.zeros(0)
    return Aim(tensor=contraction.input.tensor, scale=none, shift=none, other=None, flat=None, product=product)


class Recurrence:
    """The refit of R. aim: the gates of the original, which stands behind the layer and holds its states."""

    def __init__(self, state: State, layer: Layer, aim: Aim) -> None:
        assert layer.kernel.kind is Kind.RECURRENT_UNITS, "of other weights nothing follows that they read"
        assert aim.product is not None, "gates are a product"
        self._state, self._layer, self._aim = state, layer, aim
        self._forced = replace(aim, product=replace(aim.product, forced=True))
        self._alive = state.alive(layer)

    def settle(self) -> Refitted:
        """Refit the weight, and put it into the pruned model."""
        prior = self._layer.prior
        best = Fit.unchanged(np.where(self._alive.reshape(prior.shape[:2])[:, :, None], prior, 0.0))
        least = self._lost(best)
        rows = 0
        for number in range(ROUNDS):
            if least <= EXACT:
                break
            halves = self._state.halves(
                aimed(self._state.task, self._layer, self._aim if number else self._forced, self._alive)
            )
            rows = int(sum(half.count for half in halves))
            trial = self._fitted(halves)
            lost = self._lost(trial)
            error = trial.plain_error
            kept = best if best.refitted else replace(best, fitted_error=error, heldout_error=error, plain_error=error)
            better = lost < least
            enough = not better or lost > (1.0 - WORTH) * least
            best, least = (trial, lost) if better else (kept, least)
            if number and enough:
                break
        self._lost(best)
        self._state.models.advance(self._anchor)  # what follows is computed anew
        return Refitted(
            node=self._layer.node,
            fitted_error=best.fitted_error,
            heldout_error=best.heldout_error,
            plain_error=best.plain_error,
            refitted=best.refitted,
            rows=rows,
            columns=int(self._alive.sum()) // self._layer.kernel.groups,
        )

    @property
    def _anchor(self) -> int:
        return self._state.pairing.anchor(self._layer.contraction)

    def _fitted(self, halves: list[Regression]) -> Fit:
        known = Known(self._state.task.memory // 8, self._state.task.running.cores)
        free = self._layer.bias is not None
        return fit(halves, self._layer.prior, self._alive, free_bias=free, known=known)

    def _lost(self, found: Fit) -> float:
        """Put weights into the pruned model, and return what its states are wrong by, relative to the energy of the original's."""
        state, layer = self._state, self._layer
        axis = layer.contraction.output
        back = replace(found, bias=self._old_bias()) if found.bias is None else found
        state.take(layer, replace(back, exact=found.exact or not found.refitted))
        state.models.advance(self._anchor)  # forgets what followed from other weights
        state.models.advance(self._anchor, [axis.tensor])
        gone = dropped_channels(state.task.graph, state.choices, layer.contraction.rows)
        left = np.setdiff1d(np.arange(layer.kernel.units), gone)
        ones, zeros = np.ones(len(left)), np.zeros(len(left))
        aim = Aim(tensor=axis.tensor, scale=ones, shift=zeros, other=None, flat=None)
        ask = Ask(
            weight=layer.contraction.weight,
            kernel=layer.kernel,
            input=axis.tensor,
            aim=aim,
            axis=axis.index,
            outputs=left if gone.size else None,
            what=What.LOSS,
        )
        lost, size = united(state.models.collect(ask)).moments().energy[0]
        return float(lost / size) if size > 0.0 else float(lost > 0.0)

    def _old_bias(self) -> Float64 | None:
        """The bias for which the constant is the old one."""
        bias, weights = self._layer.bias, self._layer.weights
        return None if bias is None else bias.inside((weights.shape[0], weights.shape[2]))
