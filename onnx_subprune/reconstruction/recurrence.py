"""The weights of recurrent layers are refitted towards the gates of the original: W on what the layer reads, R on its units a step before.

What R reads follows from R. So it is first fitted on the states that the original has at the units which are left; then, as errors add up over the
steps, on those that the pruned layer has with the weight so far. Gates that are the sum of both products have W and R fitted together: what the units that
are gone knew of the data, the data know as well. The weights with which the layer puts out least wrong, run over whole sequences of one half of the
samples with what was fitted to the other, stay, and those may be the old ones, sliced.
"""

from dataclasses import replace

import numpy as np

from onnx_subprune._typing import Float64, Mask, Weights
from onnx_subprune.calibration.moments.halves import Halves
from onnx_subprune.calibration.moments.regression import Regression
from onnx_subprune.calibration.streaming.questions import Lost
from onnx_subprune.calibration.streaming.request import Request, Sampling
from onnx_subprune.calibration.streaming.target import Aim
from onnx_subprune.graph.contractions.recurrent import UnitWeight
from onnx_subprune.graph.gradients.sequences import BIAS, RECURRENCE, WEIGHT
from onnx_subprune.reconstruction.columns import dropped_channels
from onnx_subprune.reconstruction.fit import Fit, Known, fit, fit_again
from onnx_subprune.reconstruction.layer import Layer
from onnx_subprune.reconstruction.progress import State
from onnx_subprune.reconstruction.recurrent_candidates import GateWeights
from onnx_subprune.reconstruction.recurrent_gates import all_gates, apart, resets, summed_gates, together, with_data
from onnx_subprune.reconstruction.settings import Refitted
from onnx_subprune.reconstruction.task import aimed
from onnx_subprune.reconstruction.whole_sequences import WholeSequences, fits

ROUNDS = 4
"""Fits in all, the first on the original's states."""
WORTH = 0.05
"""A further round follows one that took away this share of what is wrong."""
EXACT = 1e-12
"""Less than this share of the states' energy is rounding: the weight stays as it is."""


class Recurrence:
    """The refit of R, and of W where that can be fitted with it.

    aims: the gates of the original, which stands behind the layer and holds its states, and what it reads; of W None where it stays as it is.
    whole: those of R and W of all units, where the reset gate of a GRU comes before the product.
    """

    def __init__(
        self,
        state: State,
        layer: Layer,
        aim: Aim,
        beside: tuple[Layer, Aim] | None = None,
        whole: tuple[Aim, Aim] | None = None,
    ) -> None:
        assert isinstance(layer.kernel, UnitWeight), "of other weights nothing follows that they read"
        assert aim.product is not None, "gates are a product"
        self._state, self._layer, self._units = state, layer, layer.kernel.units
        self._data = None if beside is None else beside[0]
        self._alive = state.alive(layer)
        self._summed = summed_gates(state.task.network, layer, layer.weights.shape[2])
        self._resets = beside is not None and resets(state.task.network, layer)
        self._aim = aim if beside is None else with_data(aim, beside[1], self._summed)
        self._gated = None if whole is None else all_gates(state.task.network, layer, *whole)

    def settle(self) -> Refitted:
        """Refit the weights, and put them into the pruned model."""
        best, rows = self._unchanged(), 0
        alone, least, halves = best, self._lost(best), None
        for number in range(ROUNDS):
            if least <= EXACT:
                break
            halves = self._halves(forced=not number)
            rows = int(halves.count)
            trial, judged = self._fitted(halves)
            if self._resets or self._gated is not None:
                trial, judged = self._candidates(trial, judged, forced=not number)
            lost = self._lost(judged)
            kept = best
            if not best.units.refitted:
                kept = GateWeights(best.units.with_error(trial.units.plain_error), best.data)
            better = lost < least
            enough = not better or lost > (1.0 - WORTH) * least
            best, alone, least = (trial, judged, lost) if better else (kept, alone, least)
            self._put(best)
            if number and enough:
                break
        if halves is not None and self._data is not None and len(halves.parts) == 2:
            best = self._over_sequences(best, alone, halves.whole)
        self._put(best)
        return best.units.summary(self._layer.node, rows, int(self._alive.sum()) // self._layer.kernel.groups)

    def _over_sequences(self, best: GateWeights, alone: GateWeights, seen: Regression) -> GateWeights:
        """Return weights that lose less over whole sequences; see `whole_sequences`. alone: what was fitted to the second half of the samples."""
        data, layer = self._data, self._layer
        assert data is not None, "W is fitted"
        assert best.data is not None, "W is fitted"
        refit = self._state.task.refit
        most = 0 if refit is None else refit.through_time
        whole = WholeSequences(self._state, layer, data, seen)
        if not most or not whole.possible:
            return best
        found = whole.settled(self._constants(alone), self._constants(best), most)
        if found is None:
            return best
        return GateWeights(*fits(found, (layer, best.units), (data, best.data)))

    def _constants(self, found: GateWeights) -> dict[str, Float64]:
        """Put weights into the pruned model, and return W, R and B as it has them."""
        self._put(found)
        state, layer, data = self._state, self._layer, self._data
        assert data is not None, "W is fitted"
        uses = {WEIGHT: data.contraction.weight, RECURRENCE: layer.contraction.weight}
        if layer.bias is not None:
            uses[BIAS] = layer.bias.use
        return {name: state.now(use, np.zeros(0)).astype(np.float64) for name, use in uses.items()}

    @property
    def _anchor(self) -> int:
        return self._state.pairing.anchor(self._layer.contraction)

    def _halves(self, *, forced: bool, now: GateWeights | None = None, gated: bool = False) -> Halves:
        """Moments of units, and data, against the gates; with `now`, of data alone, against the candidates that R leaves to them.

        gated: against the candidates, of units that the reset gates of the original let through.
        """
        assert self._aim.product is not None, "gates are a product"
        whole = None if self._gated is None else self._gated.product
        product = replace(self._aim.product, forced=forced, gated=whole if gated else None)
        if now is not None:
            bias = now.units.bias
            offset = np.zeros((len(now.units.weights), now.units.weights.shape[2])) if bias is None else bias
            product = replace(product.with_now(now.units.weights, offset), resets=True)
        request = aimed(self._state.task, self._layer, replace(self._aim, product=product), self._alive)
        return self._state.halves(request if self._data is None else replace(request, channels=None))

    def _unchanged(self) -> GateWeights:
        """The old R, sliced, and the W that the pruned model has."""
        prior, data = self._layer.prior, self._data
        units = Fit.unchanged(np.where(self._alive.reshape(prior.shape[:2])[:, :, None], prior, 0.0))
        if data is None:
            return GateWeights(units, None)
        now = Fit.unchanged(data.kernel.to_matrix(self._state.now(data.contraction.weight, np.zeros(0))))
        return GateWeights(units, replace(now, bias=self._own_bias()))

    def _own_bias(self) -> Float64 | None:
        """The bias of W that the pruned model had before, (1, d m)."""
        bias = self._layer.bias
        if bias is None or self._data is None:
            return None
        old = bias.old if bias.latest is None else bias.latest
        assert old is not None, "gates have their bias beside that of W"
        return old.astype(np.float64).reshape(len(old), 2, -1)[:, 0].reshape(1, -1)

    def _fitted(self, halves: Halves) -> tuple[GateWeights, GateWeights]:
        """New weights, and those that were fitted to the second half of the samples alone."""
        layer, data = self._layer, self._data
        if data is None:
            one, other = self._fit(halves, layer.prior, self._alive)
            return GateWeights(one, None), GateWeights(other, None)
        prior = np.concatenate([layer.prior, apart(data.prior, len(layer.prior))], axis=1)
        units = self._alive.reshape(layer.prior.shape[:2])
        more = np.broadcast_to(self._state.alive(data), (len(units), data.prior.shape[1]))
        both = self._fit(halves, prior, np.concatenate([units, more], axis=1).ravel())
        if self._summed.all() or self._gated is not None:  # candidates follow, or there are none
            return self._parted(both[0], both[0]), self._parted(both[1], both[1])
        alone = self._fit(halves, prior, np.concatenate([units, np.zeros_like(more)], axis=1).ravel())
        return self._parted(both[0], alone[0]), self._parted(both[1], alone[1])

    def _fit(self, halves: Halves, prior: Weights, alive: Mask) -> tuple[Fit, Fit]:
        cores = self._state.task.running.cores
        known = Known(self._state.task.memory // 8, cores)
        found = fit(halves, prior, alive, free_bias=self._layer.bias is not None, known=known)
        if len(halves.parts) < 2 or not found.refitted:
            return found, found
        return found, fit_again(halves.parts[1], found, alive, Known(0, cores))

    def _parted(self, found: Fit, alone: Fit) -> GateWeights:
        """R and W of what was fitted to both, (d, p + p', m), where gates are sums; the others have R of `alone`, and their W.

        The bias of a sum is that of R, but for what W's own adds.
        """
        layer, kept = self._layer, self._unchanged().data
        assert kept is not None, "W is fitted"
        count, bias, own = layer.prior.shape[1], found.bias, kept.bias
        weights = np.where(self._summed, found.weights, alone.weights)
        if bias is not None and alone.bias is not None and own is not None:
            bias = np.where(self._summed, bias - own.reshape(bias.shape), alone.bias)
        inputs = np.where(np.tile(self._summed, len(weights)), together(found.weights[:, count:]), kept.weights)
        refitted = found.refitted or alone.refitted
        return GateWeights(
            replace(found, weights=weights[:, :count], bias=bias, refitted=refitted),
            replace(found, weights=inputs, bias=own),
        )

    def _candidates(self, trial: GateWeights, judged: GateWeights, *, forced: bool) -> tuple[GateWeights, GateWeights]:
        """The same with weights for the candidates of a GRU.

        Where the reset gate comes to the product, W makes up for what R leaves. Where it comes before, candidates are a sum, too, of what passes that
        gate, and data.
        """
        layer, data, rows = self._layer, self._data, ~self._summed
        assert data is not None, "W is fitted"
        prior = apart(data.prior, len(layer.prior))
        units = self._alive.reshape(layer.prior.shape[:2])
        alive = np.broadcast_to(self._state.alive(data), (len(units), prior.shape[1]))
        if self._gated is None:
            halves = self._halves(forced=forced, now=trial)
            one, other = self._fit(halves, prior[:, :, rows], alive.ravel())
            return trial.with_data_candidates(one, rows), judged.with_data_candidates(other, rows)
        halves = self._halves(forced=forced, gated=True)
        prior, both = np.concatenate([layer.prior, prior], axis=1), np.concatenate([units, alive], axis=1)
        one, other = self._fit(halves, prior[:, :, rows], both.ravel())
        return trial.with_candidates(one, rows), judged.with_candidates(other, rows)

    def _put(self, found: GateWeights) -> None:
        """Put weights into the pruned model, which forgets what followed from others."""
        state, layer = self._state, self._layer
        units = (
            replace(found.units, bias=self._layer.inside)
            if found.units.bias is None and layer.bias is not None
            else found.units
        )
        if self._data is not None and found.data is not None:
            state.take(self._data, replace(found.data, exact=found.data.exact or not found.data.refitted))
            if layer.bias is not None:
                layer = replace(layer, bias=replace(layer.bias, latest=state.weights[layer.bias.use]))
        state.take(layer, replace(units, exact=units.exact or not units.refitted))
        state.models.advance(self._anchor)

    def _lost(self, found: GateWeights) -> float:
        """Put weights into the pruned model, and return what its states are wrong by in the first half, relative to the energy of the original's."""
        self._put(found)
        state, layer = self._state, self._layer
        axis = layer.contraction.output
        state.models.advance(self._anchor, [axis.tensor])
        gone = dropped_channels(state.task.graph, state.choices, layer.contraction.rows)
        left = np.setdiff1d(np.arange(self._units), gone)
        ones, zeros = np.ones(len(left)), np.zeros(len(left))
        aim = Aim(tensor=axis.tensor, scale=ones, shift=zeros, other=None, flat=None, axis=axis.index)
        request = Request(
            weight=layer.contraction.weight,
            kernel=layer.kernel,
            input=axis.tensor,
            question=Lost(replace(aim, outputs=left) if gone.size else aim),
            sampling=Sampling(one_half=True),
        )
        lost, size = state.whole(request).energy[0]
        return float(lost / size) if size > 0.0 else float(lost > 0.0)
