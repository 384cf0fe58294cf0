"""What the weights of recurrent layers should put out, and which of them can be fitted together."""

from dataclasses import replace

import numpy as np
from onnx import NodeProto

from onnx_subprune._typing import Mask, Weights
from onnx_subprune.calibration.streaming.product import Beside, Product
from onnx_subprune.calibration.streaming.target import Aim, Original
from onnx_subprune.graph.channels import ChannelGraph, Contraction, Use
from onnx_subprune.graph.contractions.reading import kernel_at
from onnx_subprune.graph.contractions.recurrent import Recurrent
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import attribute, key_of
from onnx_subprune.graph.rules.recurrent import BIAS, zeros
from onnx_subprune.reconstruction.layer import Layer

LENGTHS = 4
"""The input with the lengths of the sequences; behind it are the states that units begin with."""


def gates_of(original: Original, layer: Layer, *, whole: bool = False) -> Aim:
    """Return the aim of a weight of a recurrent layer: the gates that the original has, as far as they are left; with `whole` all of them."""
    contraction, network = layer.contraction, original.network
    node, left = network.node(contraction.node), None if whole else original.rows.get(contraction.weight)
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


def gated(network: Network, graph: ChannelGraph, contraction: Contraction) -> Contraction | None:
    """Return R of a GRU whose reset gate comes before the product, with its bias, where that can be refitted together with W; else None.

    No tensor shows what it reads, but it follows from units and gates, as long as the weight is nobody else's, and all states have a name.
    """
    node = network.node(contraction.node)
    alone = len(graph.together(contraction)) == 1 and len(network.readers.get(contraction.weight_tensor, ())) == 1
    if contraction.observed or not (contraction.recurs and alone and _usual_gru(node) and node.output[0]):
        return None
    bias = any(item.bias is not None for item in graph.contractions if item.node == contraction.node)
    found = replace(contraction, bias=Use(contraction.node, BIAS) if bias else None)
    return found if input_of_gates(network, graph, found) is not None else None


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


def reads_zeros(network: Network, graph: ChannelGraph, contraction: Contraction) -> bool:
    """True for R of a layer that takes a single step from zeros: it adds nothing but its bias, and no data say what it should be."""
    steps = graph.observation.shapes[contraction.input.tensor]
    if not contraction.recurs or len(steps) < 4 or steps[0] > 1:
        return False
    given = network.node(contraction.node).input[LENGTHS + 1 : LENGTHS + 2]
    return all(zeros(network, name) for name in given if name)


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


def summed_gates(network: Network, layer: Layer, gates: int) -> Mask:
    """Which of so many gates, (m,), are the sum of what R makes of the units and W of the data: not the candidate of a GRU, where the reset gate comes in."""
    operator = key_of(network.node(layer.contraction.node))
    return np.asarray(np.arange(gates) < (gates // 3 * 2 if operator == "GRU" else gates))


def all_gates(network: Network, layer: Layer, units: Aim, data: Aim) -> Aim:
    """Return the aim of R, `units`, with that of W beside it, both of all units of the original, where the reset gate of a GRU comes before the product."""
    assert units.product is not None, "gates are a product"
    return with_data(units, data, summed_gates(network, layer, units.product.weights.shape[2]))


def resets(network: Network, layer: Layer) -> bool:
    """True if the reset gate of a GRU comes to the product, and is known from the gates: it is a sigmoid of their sum."""
    node = network.node(layer.contraction.node)
    return _usual_gru(node) and bool(attribute(node, "linear_before_reset", 0))


def _usual_gru(node: NodeProto) -> bool:
    return key_of(node) == "GRU" and attribute(node, "activations") is None and attribute(node, "clip") is None
