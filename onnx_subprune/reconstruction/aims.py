"""Where a layer of the walk finds its target: the tensor of the original that it aims at, and how far the original must be for that.

Normalisations are fitted to the original's when all that comes before them is settled; see `statistics`.
"""

from collections.abc import Mapping

from onnx_subprune._typing import Array
from onnx_subprune.calibration.streaming.target import Aim, Original
from onnx_subprune.graph.channels import Contraction, Use
from onnx_subprune.graph.content_sizes import sized_by_content
from onnx_subprune.graph.statistics import counting, operand, statistics_of
from onnx_subprune.graph.surgery.slicing import kept_positions
from onnx_subprune.reconstruction.layer import Layer
from onnx_subprune.reconstruction.progress import State
from onnx_subprune.reconstruction.recurrent_gates import gates_of
from onnx_subprune.reconstruction.statistics import asked, every_of, scaled, statistics_at
from onnx_subprune.reconstruction.targets import aim_of


class Normalizations:
    """Those in front of contractions that the walk has not come to, and of one size in both models.

    lost: what has been cut before it. original: what they are fitted to, if it runs.
    """

    def __init__(self, state: State, original: Original | None, lost: frozenset[Use]) -> None:
        network = state.task.network
        self._state, self._lost, self._alone = state, set(lost), original is None
        fitted = state.task.refit is not None and not self._alone
        sized = sized_by_content(network)
        found = [item for item in network.spelled.normalizations if item.shifted not in sized] if fitted else []
        self._waiting = sorted(found, key=lambda item: network.producer[item.shifted])

    def begin(self) -> Mapping[Use, Array]:
        """Return constants with which statistics are those of the channels that stay, as far as these have been chosen beforehand.

        Without an original to follow, normalisations are fitted at once, to that of the data.
        """
        task, state = self._state.task, self._state
        supports = {name: choice.support for name, choice in state.choices.items()}
        kept = kept_positions(task.graph, supports)
        self._lost |= {axis.use for axis in kept if axis.use is not None}
        if not self._alone or task.refit is None:
            return statistics_of(task.network, kept)
        values = statistics_at(task, [supports])[0]
        for use, value in values.items():
            state.weights[use] = value
        return values

    def shown(self, position: int) -> list[str]:
        """Return tensors of the original that it must hold when it moves on to `position`."""
        producer = self._state.task.network.producer
        return [item.shifted for item in self._waiting if producer[item.shifted] < position]

    def fit(self, contraction: Contraction) -> None:
        """Fit the normalisations in front of `contraction` that have fewer channels."""
        state, network = self._state, self._state.task.network
        while self._waiting and network.producer[self._waiting[0].shifted] < network.position[contraction.node]:
            item = self._waiting[0]
            if counting(network, item.means[-1]).use in self._lost:
                position = network.producer[item.shifted] + 1
                state.models.advance_original(position, also=self.shown(position))
                sums = asked(network, item, state.models, every_of(state.task, item))
                for use, value in scaled(network, item, sums).items():
                    state.weights[use] = value
                    state.models.override(use, value)
                state.changed.add(operand(network, item.epsilon)[0].node)
            del self._waiting[0]


class Aims:
    """The aims of the contractions of `state.order`, of which all from the one that is looked at on may still change.

    original: the model that has the targets; None where these are what the old weights make of the inputs. normalizations: others that aim at it.
    """

    def __init__(self, state: State, original: Original | None, normalizations: Normalizations) -> None:
        self._state, self._original, self._normalizations = state, original, normalizations
        self._sized = sized_by_content(state.task.network)

    def of(self, place: int, layer: Layer) -> Aim | None:
        """Return what `layer`, number `place` of the order, should put out; None where that is what its old weights make of its input."""
        task, order = self._state.task, self._state.order
        if self._original is None or layer.contraction.input.tensor in self._sized:  # there its sizes are others
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
