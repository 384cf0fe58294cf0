"""A contraction as the walk sees it: its weights as a matrix, where its bias goes, and which of its outputs have been dropped already."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnx_subprune._typing import Array, Float64, Int64, Weights
from onnx_subprune.graph.channels import ChannelGraph, Contraction, Use
from onnx_subprune.graph.contractions.bias import Addend, Bias, addend_of, bias_of
from onnx_subprune.graph.contractions.kernel import Kernel
from onnx_subprune.graph.contractions.reading import kernel_of
from onnx_subprune.graph.network import Network
from onnx_subprune.reconstruction.columns import dropped_channels
from onnx_subprune.reconstruction.fit import Fit
from onnx_subprune.selection import Choice


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """See the module.

    weights: (g, p, m), of the original. outputs: those of the m that are not dropped, sorted; None for all, and where that saves nothing.
    bias: None where there is no place for one. addend: what it adds besides that, which stays.
    """

    contraction: Contraction
    kernel: Kernel
    weights: Weights
    outputs: Int64 | None
    bias: Bias | None
    addend: Addend | None = None

    @property
    def node(self) -> str:
        """Its label."""
        return self.contraction.node

    @property
    def prior(self) -> Weights:
        """The weights of the outputs that are left, (g, p, m')."""
        return self.weights if self.outputs is None else self.weights[:, :, self.outputs]

    @property
    def inside(self) -> Float64:
        """What the outputs that are left contain of the old bias, (g, m')."""
        shape = self.weights.shape[0], self.weights.shape[2]
        found = np.zeros(shape) if self.bias is None else self.bias.inside(shape)
        return found if self.outputs is None else found[:, self.outputs]

    def whole(self, values: Weights) -> Weights:
        """Return what is known of the outputs that are left, (..., m'), among all of them, (..., m): zero for the others."""
        if self.outputs is None:
            return values
        found = np.zeros((*values.shape[:-1], self.weights.shape[2]), values.dtype)
        found[..., self.outputs] = values
        return found

    @property
    def uses(self) -> tuple[Use, ...]:
        """Where it reads what a fit changes."""
        return (self.contraction.weight, *([] if self.bias is None else [self.bias.use]))

    def constants(self, found: Fit, network: Network) -> Mapping[Use, Array]:
        """Return the constants that `found` gives it."""
        old = network.array(self.contraction.weight_tensor)
        values = {self.contraction.weight: self.kernel.from_matrix(self.whole(found.weights), old.dtype, old.shape)}
        if found.bias is not None and self.bias is not None:
            values[self.bias.use] = self.bias.replaced(self.whole(found.bias).astype(np.float64, copy=False))
        return values


def layer_of(network: Network, graph: ChannelGraph, contraction: Contraction, choices: Mapping[str, Choice]) -> Layer:
    """Return the layer that a contraction is after `choices`."""
    kernel, weights = kernel_of(network, contraction)
    channels = graph.observation.shapes[contraction.output.tensor][contraction.output.index]
    outputs = None
    if (
        kernel.groups == 1 and not contraction.internal and not kernel.wide(weights.shape[1])
    ):  # a copy of part of a wide product is large
        gone = dropped_channels(graph, choices, contraction.columns)
        outputs = np.setdiff1d(np.arange(weights.shape[2]), gone) if gone.size else None
    bias = bias_of(network, contraction, kernel, channels)
    addend = addend_of(network, contraction, kernel, bias)
    return Layer(contraction=contraction, kernel=kernel, weights=weights, outputs=outputs, bias=bias, addend=addend)


def farther(value: Array, old: Array, share: float) -> Array:
    """Return `value`, moved on by `share` of the step from `old`, which is zero where it has another shape."""
    now = value.astype(np.float64)
    step = now - old.astype(np.float64) if old.shape == value.shape else now
    return np.asarray(now + share * step).astype(value.dtype)
