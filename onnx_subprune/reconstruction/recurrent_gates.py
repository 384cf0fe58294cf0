"""What the weights of recurrent layers should put out, and which of them can be fitted together."""

from dataclasses import replace

import numpy as np

from onnx_subprune._typing import Mask, Weights
from onnx_subprune.calibration.streaming.product import Beside, Product
from onnx_subprune.calibration.streaming.target import Aim, Original
from onnx_subprune.graph.channels import ChannelGraph, Contraction
from onnx_subprune.graph.contractions.reading import kernel_at
from onnx_subprune.graph.contractions.recurrent import Recurrent
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import attribute, key_of
from onnx_subprune.graph.rules.recurrent import zeros
from onnx_subprune.reconstruction.layer import Layer

LENGTHS = 4
"""The input with the lengths of the sequences; behind it are the states that units begin with."""


def gates_of(original: Original, layer: Layer) -> Aim:
    """Return the aim of a weight of a recurrent layer: the gates that the original has, as far as they are left."""
    contraction, network = layer.contraction, original.network
    node, left = network.node(contraction.node), original.rows.get(contraction.weight)
    weight = network.array(node.input[contraction.weight.slot])
    weight = weight if left is None else weight[:, left]
    kernel = kernel_at(node, weight.shape, contraction.weight.slot)
    assert isinstance(kernel, Recurrent), "gates are of recurrent layers"
    matrix = kernel.to_matrix(weight)
    offset = np.zeros((matrix.shape[0], matrix.shape[2]))
    if layer.bias is not None and layer.bias.half is not None:
        bias = network.array(node.input[layer.bias.use.slot]).astype(np.float64)
        mine = bias.reshape(len(bias), 2, -1)[:, layer.bias.half]
        offset = (mine if left is None else mine[:, left]).reshape(offset.shape)
    product = Product(kernel=kernel, weights=matrix, offset=offset)
    none = np.zeros(0)
    return Aim(tensor=contraction.input.tensor, scale=none, shift=none, other=None, flat=None, product=product)


def input_of_gates(network: Network, graph: ChannelGraph, units: Contraction) -> Contraction | None:
    """Return the contraction of W that can be fitted together with that of R, `units`; None where there is none.

    Behind the end of a sequence are data that no gate has seen, of a single step no units are read, and units begin as zeros here.
    """
    inputs, steps = network.node(units.node).input, graph.observation.shapes[units.input.tensor]
    given = any(name and not zeros(network, name) for name in inputs[LENGTHS : LENGTHS + 2])
    if len(steps) < 4 or steps[0] < 2 or given:
        return None
    for item in graph.contractions:
        if item.node == units.node and not item.recurs:
            alone = graph.alone(item.weight)
            return item if alone and (item.bias is None) == (units.bias is None) else None
    return None


def apart(matrix: Weights, directions: int) -> Weights:
    """Return W, (1, p, d m), as (d, p, m)."""
    parts: Weights = matrix[0].reshape(matrix.shape[1], directions, -1)
    return parts.transpose(1, 0, 2)


def together(weights: Weights) -> Weights:
    """Undo `apart`."""
    turned: Weights = weights.transpose(1, 0, 2)
    return turned.reshape(1, weights.shape[1], -1)


def with_data(aim: Aim, data: Aim, summed: Mask) -> Aim:
    """Return the aim of R with that of W, `data`, beside it."""
    assert aim.product is not None, "gates are a product"
    assert data.product is not None, "gates are a product"
    weights = apart(data.product.weights, aim.product.kernel.groups)
    offset = data.product.offset.reshape(weights.shape[0], -1)
    return replace(aim, product=replace(aim.product, beside=Beside(data.tensor, weights, offset, summed)))


def summed_gates(network: Network, layer: Layer) -> Mask:
    """Which gates, (m,), are the sum of what R makes of the units and W of the data: of a GRU, not the candidate, to whose product the reset gate comes."""
    gates = layer.weights.shape[2]
    operator = key_of(network.node(layer.contraction.node))
    return np.asarray(np.arange(gates) < (gates // 3 * 2 if operator == "GRU" else gates))


def resets(network: Network, layer: Layer) -> bool:
    """True if the reset gate of a GRU is known from the gates: it is a sigmoid of their sum."""
    node = network.node(layer.contraction.node)
    return key_of(node) == "GRU" and attribute(node, "activations") is None and attribute(node, "clip") is None
