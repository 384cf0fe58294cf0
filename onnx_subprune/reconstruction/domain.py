"""Operators that are not defined everywhere, behind a layer: new weights may leave their domain where the old ones did not.

A filter bank's power is positive; refitted, it may be below zero somewhere, and its logarithm is no number. Then the layer keeps its old weights.
"""

from collections.abc import Mapping

import numpy as np

from onnx_subprune._typing import Array
from onnx_subprune.calibration.streaming.executor import united
from onnx_subprune.calibration.streaming.request import Ask, What
from onnx_subprune.graph.channels import Contraction, Use
from onnx_subprune.graph.network import Network, key_of
from onnx_subprune.reconstruction.layer import Layer
from onnx_subprune.reconstruction.progress import State
from onnx_subprune.reconstruction.settings import Layerwise

PARTIAL = frozenset(("Acos", "Acosh", "Asin", "Atanh", "Log", "Pow", "Reciprocal", "Sqrt"))
"""Operators that give no finite number for some inputs; a Div does by what it divides by."""
AVERAGES = frozenset(("ReduceMean", "ReduceL2", "GlobalAveragePool"))
"""What is behind these, in normalisations that are spelled out, is as positive as it was."""


class Domain:
    """What lies between a layer and the contractions behind it; the layer and its producer are as they were when this was made."""

    def __init__(self, state: State, layer: Layer) -> None:
        self._state, self._layer = state, layer
        followed = not isinstance(state.task.formulation, Layerwise) and not layer.contraction.recurs
        ends = partial_behind(state.task.network, layer.contraction, state.order) if followed else {}
        self._ends = {tensor: op for tensor, op in ends.items() if self._finite(tensor)}  # others never were numbers
        self._before = self._constants() if self._ends else {}

    def left(self) -> str | None:
        """Return the operator that puts out something else than finite numbers now, if there is one."""
        return next((op for tensor, op in self._ends.items() if not self._finite(tensor)), None)

    def _finite(self, tensor: str) -> bool:
        ask = Ask(weight=self._layer.contraction.weight, kernel=self._layer.kernel, input=tensor, what=What.PEAKS)
        with np.errstate(over="ignore", invalid="ignore"):
            peaks = united(self._state.models.collect(ask)).moments().energy
        return bool(np.isfinite(peaks).all())

    def back(self) -> None:
        """Give the layer and its producer the constants that they had."""
        state, contraction = self._state, self._layer.contraction
        for use, value in self._before.items():
            state.weights[use] = value
            state.models.override(use, value)
        state.models.advance(state.pairing.anchor(contraction), [contraction.input.tensor])

    def _constants(self) -> Mapping[Use, Array]:
        state, layers = self._state, [self._layer]
        way = state.pairing.way(self._layer.contraction)
        if way is not None:
            layers.append(state.layer(way.producer))
        values: dict[Use, Array] = {}
        for layer in layers:
            weight = layer.contraction.weight
            values[weight] = state.now(weight, np.zeros(0))
            if layer.bias is not None:
                values[layer.bias.use] = state.now(layer.bias.use, np.zeros(len(layer.bias.scale), layer.bias.dtype))
        return values


def partial_behind(network: Network, contraction: Contraction, contractions: list[Contraction]) -> dict[str, str]:
    """Return the outputs of operators that are not defined everywhere, and these, between a contraction and those behind it."""
    walls = {network.position[item.node] for item in contractions}
    pending, seen, found = [contraction.output.tensor], set[int](), dict[str, str]()
    while pending:
        for index, slot in network.readers.get(pending.pop(), ()):
            op = key_of(network.nodes[index])
            if index in seen or index in walls or op in AVERAGES or slot < 0:
                continue
            divides = op == "Div" and slot == 1
            if op in PARTIAL or divides:
                found[network.nodes[index].output[0]] = op
            seen.add(index)
            pending += [name for name in network.nodes[index].output if name]
    return found
