"""What follows the first fit of a layer: targets renewed by the activation behind it, and refits together with the producer of its input."""

from onnx_subprune.calibration.streaming.target import Aim
from onnx_subprune.reconstruction.domain import MARGIN, partial_behind
from onnx_subprune.reconstruction.fit import Fit, Known, fit_again
from onnx_subprune.reconstruction.joint_refit import WORTH, Joint, Pruned
from onnx_subprune.reconstruction.layer import Layer
from onnx_subprune.reconstruction.producers.chains import Chain
from onnx_subprune.reconstruction.progress import State
from onnx_subprune.reconstruction.task import aimed


class Refitting:
    """The refits of one layer towards its aim, on inputs that no choice changes any more. aim: None for none."""

    def __init__(self, state: State, layer: Layer, aim: Aim | None) -> None:
        self._state, self._layer, self._aim = state, layer, aim
        self._alive, self._chain = state.alive(layer), state.pairing.chain(layer.contraction)

    def settled(self, found: Fit, known: Known) -> Fit:
        """Return the last fit after `found`, which was made with `known`; the pruned model has it."""
        state, rounds = self._state, self._rounds()
        if self._chain is not None and self._alive.any() and self._aim is not None:
            first = self._renewed(found, known, max(0, rounds - 1))
            found, known = self._refitted_jointly(self._chain, first, known)
            rounds = min(rounds, 1) if found is first else 0  # the refits with the producer renew it too
        found = self._renewed(found, known, rounds)
        state.pairing.remember(self._layer.contraction, known.whole)
        return found

    def _rounds(self) -> int:
        """How often the target is to be renewed."""
        task = self._state.task
        tells = self._aim is not None and self._aim.flat is not None and self._layer.bias is not None
        return task.refit.rounds if tells and task.refit is not None else 0

    def _renewed(self, found: Fit, known: Known, rounds: int) -> Fit:
        """Fit to targets that differ from what the layer now puts out only where the activation behind sees it."""
        if not rounds or self._aim is None:
            return found
        request = aimed(self._state.task, self._layer, self._aim, self._alive, renew=True, with_gram=False)
        for _ in range(rounds):
            found = fit_again(self._state.whole(request), found, self._alive, known)
            self._state.take(self._layer, found)
        return found

    def _refitted_jointly(self, chain: Chain, found: Fit, known: Known) -> tuple[Fit, Known]:
        """Refit the layer, fitted so far with `known`, together with the producer of its input; see `joint`."""
        state, task, reader, alive, aim = self._state, self._state.task, self._layer, self._alive, self._aim
        assert aim is not None, "a residual is short of an aim"
        request = aimed(task, reader, aim, alive, renew=aim.flat is not None)
        producer = state.layer(chain.producer)
        aim = aim.on(reader.contraction.output.index, reader.outputs)
        source = state.pairing.source(producer, state.alive(producer), request)
        pruned = Pruned(
            network=task.network,
            models=state.models,
            weights=state.weights,
            position=state.pairing.anchor(reader.contraction),
            held=(request.input,),
            threads=task.running.cores,
        )
        margin = MARGIN if partial_behind(task.network, chain.producer, state.order) else 0.0
        joint, best = Joint(pruned, chain, source, aim, reader.uses, margin=margin), (found, known)

        def refit() -> tuple[Fit, Known]:
            other = Known(threads=task.running.cores)  # of other inputs; but the ridge stays
            trial = fit_again(state.whole(request), best[0], alive, other)
            state.take(reader, trial)
            return trial, other

        assert task.refit is not None, "layers are refitted jointly where they are refitted"
        for _ in range(source.lasting * task.refit.joint):
            fall, trial = joint.step(refit)
            best = trial or best
            if fall < WORTH / source.lasting:
                break
        return best
