"""Where a layer of the walk finds its target: the tensor of the original that it aims at, and how far the original must be for that."""

from onnx_subprune.calibration.streaming.kept import Original
from onnx_subprune.calibration.streaming.target import Aim
from onnx_subprune.reconstruction.layer import Layer
from onnx_subprune.reconstruction.normalizations import Normalizations
from onnx_subprune.reconstruction.progress import State
from onnx_subprune.reconstruction.recurrent_gates import gates_of
from onnx_subprune.reconstruction.targets import aim_of


class Aims:
    """The aims of the contractions of `state.order`, of which all from the one that is looked at on may still change.

    original: the model that has the targets; None where these are what the old weights make of the inputs. normalizations: others that aim at it.
    """

    def __init__(self, state: State, original: Original | None, normalizations: Normalizations) -> None:
        self._state, self._original, self._normalizations = state, original, normalizations

    def of(self, place: int, layer: Layer) -> Aim | None:
        """Return what `layer`, number `place` of the order, should put out; None where that is what its old weights make of its input."""
        task, order = self._state.task, self._state.order
        if self._original is None:
            return None
        if layer.contraction.internal:
            served = len(task.graph.together(layer.contraction)) > 1 or layer.contraction.weight in task.graph.fixed
            return None if served else gates_of(self._original, layer)
        residual = task.refit is not None and task.refit.residual
        later, observation = order[place:], task.graph.observation
        return aim_of(task.network, layer.contraction, later, observation, residual=residual, addend=layer.addend)

    def show(self, place: int, *aims: Aim) -> None:
        """Move the original to where it shows the tensors of `aims`, those of contraction number `place` and of others with its weight."""
        models, tensors, where = self._state.models, [aim.tensor for aim in aims], self._where(place, aims[0])
        tensors += self._normalizations.shown(where)
        models.advance_original(where, also=tensors)  # what follows from these need not be held

    def _where(self, place: int, aim: Aim) -> int:
        network, order = self._state.task.network, self._state.order
        if aim.product is not None and not order[place].recurs:
            return network.position[order[place].node]
        after = network.position[order[place + 1].node] if place + 1 < len(order) else len(network.nodes)
        return min(after, network.producer[aim.tensor] + 1)
