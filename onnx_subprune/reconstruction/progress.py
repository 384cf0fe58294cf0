"""How things stand on the walk: both models up to a contraction, the channels chosen, and the new weights."""

from dataclasses import replace

from onnx_subprune._typing import Array, Mask
from onnx_subprune.calibration.moments.halves import Halves
from onnx_subprune.calibration.moments.regression import Regression
from onnx_subprune.calibration.streaming.executor import Lockstep
from onnx_subprune.calibration.streaming.request import Request
from onnx_subprune.graph.channels import Contraction, Use
from onnx_subprune.reconstruction.columns import alive_columns
from onnx_subprune.reconstruction.fit import Fit
from onnx_subprune.reconstruction.layer import Layer, layer_of
from onnx_subprune.reconstruction.pairs import Pairing
from onnx_subprune.reconstruction.requests import input_of
from onnx_subprune.reconstruction.task import Task
from onnx_subprune.runtime.spill import Shelf


class State:
    """What the walk and its refits work on. choices and weights grow as it goes; order: the contractions, in topological order."""

    def __init__(self, task: Task, models: Lockstep) -> None:
        self.task, self.models = task, models
        self.choices = dict(task.choices)
        self.weights = Shelf[Use](task.memory // 8)
        self.changed: set[str] = set()
        """Labels of contractions that put out something else than the original's."""
        self.order = sorted(task.graph.contractions, key=lambda item: task.network.position[item.node])
        self.pairing = Pairing(task, self.order, self.weights)

    def layer(self, contraction: Contraction) -> Layer:
        """Return the contraction as it is by now.

        Where targets are those of the original weights, dropped outputs count as the others do.
        """
        choices = self.choices if self.task.formulation.repairs else {}
        layer = layer_of(self.task.network, self.task.graph, contraction, choices)
        if layer.bias is None or layer.bias.half is None or layer.bias.use not in self.weights:
            return layer
        return replace(layer, bias=replace(layer.bias, latest=self.weights[layer.bias.use]))

    def alive(self, layer: Layer) -> Mask:
        """Return which columns of the layer have not been dropped."""
        return alive_columns(self.task.graph, self.choices, layer.contraction, layer.kernel, layer.weights)

    def halves(self, request: Request) -> Halves:
        """Return the moments of the even and of the odd chunks."""
        return self.models.collect(request).moments(self.task.running.cores)

    def own(self, layer: Layer) -> Halves:
        """Return the moments of what the layer reads, with what its old weights and bias make of that for a target."""
        halves = self.models.collect(input_of(layer.contraction, layer.kernel)).moments()
        return halves.with_target(layer.prior).map(lambda half: half.shifted(layer.inside))

    def whole(self, request: Request) -> Regression:
        """Return the moments of all chunks."""
        return self.models.collect(request).whole()

    def now(self, use: Use, otherwise: Array) -> Array:
        """Return the constant in a slot of the pruned model; `otherwise` where the slot is empty."""
        if use in self.weights:
            return self.weights[use]
        names = self.task.network.node(use.node).input
        return self.task.network.array(names[use.slot]) if use.slot < len(names) and names[use.slot] else otherwise

    def take(self, layer: Layer, found: Fit) -> None:
        """Put new weights and bias into the pruned model."""
        if not found.exact:
            self.changed.add(layer.node)
        for use, value in layer.constants(found, self.task.network).items():
            self.weights[use] = value
            if self.task.formulation.follows:
                self.models.override(use, value)
