"""Where the free bias of a refitted contraction goes: its own, that of an Add or BatchNormalization behind it, or a new one.

Gemm adds more than biases: any C that broadcasts, constant or not, times beta. What is no bias is an `Addend`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from onnx_subprune._typing import Array, Float64
from onnx_subprune.graph.channels import Axis, ChannelGraph, Contraction, Use
from onnx_subprune.graph.contractions.kernel import Kernel
from onnx_subprune.graph.network import Network, only_reader
from onnx_subprune.graph.operators import attribute, key_of
from onnx_subprune.graph.sharing import Readers


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bias:
    """The constant that a bias is written to.

    old: its value, None where the slot is empty. scale: what one unit of bias of the contraction changes there, (channels,). own: the contraction
    adds it itself, so that its output has it already. half: which half of the last axis of `old` it is, None for all; the other is that of another
    contraction, and keeps the value that it has in `latest`, where that is given.
    """

    use: Use
    old: Array | None
    scale: Float64
    own: bool
    dtype: np.dtype[np.generic]
    half: int | None = None
    latest: Array | None = None

    def replaced(self, bias: Float64) -> Array:
        """Return the new constant for which the contraction has this bias, (g, m), in the terms of its output."""
        value = bias.ravel() * self.scale
        if self.old is None:
            return value.astype(self.dtype)
        if self.half is not None:
            whole = np.array(self.old if self.latest is None else self.latest)
            part = whole.reshape(len(whole), 2, -1)[:, self.half]  # a view
            part[:] = value.reshape(part.shape)
            return whole
        if not self.own:
            value = value + self.old.astype(np.float64).ravel()
        return value.reshape(self.old.shape).astype(self.old.dtype)

    def inside(self, shape: tuple[int, int]) -> Float64:
        """Return what of it the contraction's output contains, (g, m)."""
        if self.old is None or not self.own:
            return np.zeros(shape)
        if self.half is not None:
            return self.old.astype(np.float64).reshape(len(self.old), 2, -1)[:, self.half].reshape(shape)
        return np.asarray((self.old.astype(np.float64).ravel() / self.scale).reshape(shape))


def bias_of(network: Network, contraction: Contraction, kernel: Kernel, channels: int) -> Bias | None:
    """Return where the bias of a contraction with `channels` outputs goes; None if there is no place of the right size."""
    dtype = network.array(contraction.weight_tensor).dtype
    ones = np.ones(channels)
    if contraction.internal:
        return _of_gates(network, contraction)
    if contraction.bias is not None:
        use = contraction.bias
        old = network.array(network.node(use.node).input[use.slot])
        own = use.node == contraction.node
        rows = (
            own and kernel.bias_by_row and channels > 1 and old.shape[-1:] != (channels,)
        )  # one number a row, if so many
        if old.size != channels or rows or (own and kernel.bias_scale == 0.0):
            return None
        return Bias(use=use, old=old, scale=ones / kernel.bias_scale if own else ones, own=own, dtype=dtype)
    if contraction.new_bias is None:
        return None
    reader = only_reader(network, contraction.output.tensor)
    if reader is not None and key_of(network.nodes[reader[0]]) == "BatchNormalization":
        node = network.nodes[reader[0]]
        scale, _ = normalization_scale(network, node)
        use = Use(network.labels[reader[0]], 2)
        return Bias(use=use, old=network.array(node.input[2]), scale=scale, own=False, dtype=dtype)
    return Bias(use=contraction.new_bias, old=None, scale=ones / (kernel.bias_scale or 1.0), own=True, dtype=dtype)


def _of_gates(network: Network, contraction: Contraction) -> Bias | None:
    """The half of a recurrent layer's bias (d, 2 m) that goes with one of its two weights."""
    if contraction.bias is None:
        return None
    use = contraction.bias
    old = network.array(network.node(use.node).input[use.slot])
    ones, half = np.ones(old.size // 2), contraction.weight.slot - 1
    return Bias(use=use, old=old, scale=ones, own=True, dtype=old.dtype, half=half)


@dataclass(frozen=True, slots=True, kw_only=True)
class Addend:
    """A tensor that a contraction adds to its product, times `scale`, and that no refit changes: the C of a Gemm that is no bias."""

    tensor: str
    scale: float


def addend_of(network: Network, contraction: Contraction, kernel: Kernel, bias: Bias | None) -> Addend | None:
    """Return what the contraction adds besides `bias`; None if that is nothing."""
    inputs, slot = network.node(contraction.node).input, kernel.bias_slot
    if slot is None or len(inputs) <= slot or not inputs[slot] or kernel.bias_scale == 0.0:
        return None
    if bias is not None and bias.use == Use(contraction.node, slot):
        return None
    return Addend(tensor=inputs[slot], scale=kernel.bias_scale)


def normalization_scale(network: Network, node: NodeProto) -> tuple[Float64, Float64]:
    """Return scale and shift, (channels,) each, of a BatchNormalization in inference form."""
    gamma, beta, mean, var = (network.array(name).astype(np.float64) for name in node.input[1:5])
    epsilon = attribute(node, "epsilon", 1e-5)
    assert isinstance(epsilon, float)
    scale = gamma / np.sqrt(var + epsilon)
    return scale, beta - mean * scale


def new_biases(network: Network, graph: ChannelGraph) -> Iterator[tuple[Axis, int]]:
    """Yield output axes, with their sizes, of contractions without a bias, which get one when they are refitted: one for all that have one weight."""
    for contraction in graph.contractions:
        first = graph.together(contraction)[0].weight == contraction.weight
        if first and contraction.new_bias is not None and _place(network, contraction) is None:
            axis = contraction.output
            yield axis, graph.observation.shapes[axis.tensor][axis.index]


def refitted_by(network: Network, graph: ChannelGraph, readers: Mapping[str, Readers]) -> dict[Use, Use]:
    """Return, for uses of constants that serve several nodes, the contraction whose refit gives them a value of its own, by its weight.

    Of contractions that have one weight it is the first.
    """
    served = {
        use for reading in readers.values() if len(reading.uses) + len(reading.others) > 1 for use in reading.uses
    }
    found: dict[Use, Use] = {}
    for contraction in graph.contractions:
        first = graph.together(contraction)[0].weight
        bias = contraction.bias or _place(network, contraction)
        if contraction.weight not in graph.fixed:
            found[contraction.weight] = first
        if bias is not None:
            found[bias] = first
    return {use: first for use, first in found.items() if use in served}


def _place(network: Network, contraction: Contraction) -> Use | None:
    """The constant of a BatchNormalization behind a contraction that takes its bias; None if that is new, or there is no place."""
    reader = only_reader(network, contraction.output.tensor)
    if contraction.new_bias is None or reader is None or key_of(network.nodes[reader[0]]) != "BatchNormalization":
        return None
    return Use(network.labels[reader[0]], 2)
