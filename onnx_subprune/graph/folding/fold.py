"""The same function in fewer steps: what runtimes would not fold by themselves.

    Conv(x) s + b = Conv'(x)                       s, b: one number, or one a channel
    Conv(x s + b) = Conv'(x)                       where nothing is padded; Conv'(x + b / s) where it is
    y clip(x + c, 0, m) / m = y HardSigmoid(x)     alpha = 1 / m, beta = c / m

onnxruntime folds constants of the shape [channels, 1, 1] behind a Conv, but not single numbers, which exports of PaddlePaddle have behind convolutions
and activations (PP-OCRv4, PP-LCNetV3), nor anything into a ConvTranspose. A HardSwish that is spelled out takes four nodes in the place of two.
Unpruned, PP-OCRv4's recogniser takes 0.66 of its time so (onnxruntime 1.32, one thread, one image; 0.47 on 32), its detector 0.68, its classifier 0.69.

Tensors that are left have the values that they had. Weights in side files, in several nodes' use, or of other types than float32 stay as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, helper

from onnx_subprune.graph.folding.affine import Affine, Layer, affine_of, layer_of, normalization_of, renew, unpadded
from onnx_subprune.graph.folding.gates import hard_sigmoid
from onnx_subprune.graph.folding.wiring import Wiring
from onnx_subprune.graph.operators import STANDARD

OLDEST, INITIALIZED = 6, 4
"""The first version of the standard operators whose HardSigmoid is today's, and of the format in which an initializer need not be an input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """A model, and how many nodes are folded into layers, and how many activations that were spelled out are one operator, or two."""

    model: ModelProto
    maps: int = 0
    activations: int = 0


def folded(model: ModelProto) -> Folded:
    """Return the model with what can be folded; the same object where there is nothing."""
    wiring, maps, activations = _fold(model)
    return Folded(model=wiring.model() if maps or activations else model, maps=maps, activations=activations)


def foldable(model: ModelProto) -> Sequence[str]:
    """Return the first outputs of the nodes that take no time in a folded model."""
    return _fold(model)[0].gone


def _fold(model: ModelProto) -> tuple[Wiring, int, int]:
    """Fold, and count as `Folded` does."""
    wiring = Wiring(model)
    version = max((item.version for item in model.opset_import if item.domain in STANDARD), default=1)
    if model.ir_version < INITIALIZED or version < OLDEST:
        return wiring, 0, 0
    places = range(len(wiring.nodes))
    activations = sum(hard_sigmoid(wiring, at) for at in places)
    before = len(wiring.gone)
    for at in places:
        while _behind(wiring, at):
            pass
    for at in reversed(places):
        _in_front(wiring, at)
    return wiring, len(wiring.gone) - before, activations


def _behind(wiring: Wiring, at: int) -> bool:
    """Fold what scales or shifts the output of the convolution at `at` into it; True where something was folded."""
    layer = layer_of(wiring, at)
    reader = None if layer is None else wiring.reader(layer.node.output[0])
    if layer is None or reader is None:
        return False
    affine = affine_of(wiring, reader, layer.outputs, layer.rank) or normalization_of(wiring, layer, reader)
    ending = wiring.nodes[reader]
    if affine is None or ending is None:
        return False
    ones = np.ones(layer.outputs)
    scale, bias, known = affine.scale * ones, affine.shift * ones, layer.bias
    bias = bias if known is None else known * scale + bias
    made = ending.output[0]
    wiring.replace(reader, None)
    renew(
        layer,
        layer.times(scale, outputs=True),
        bias if known is not None or bias.any() else None,
        made=made,
    )
    return True


def _in_front(wiring: Wiring, at: int) -> None:
    """Fold the node at `at`, which scales or shifts what only convolutions read, into these."""
    node = wiring.nodes[at]
    places = () if node is None else tuple(dict.fromkeys(wiring.readers(node.output[0])))
    layers = [layer for place in places if (layer := layer_of(wiring, place)) is not None]
    if node is None or not layers or len(layers) != len(places) or len({layer.inputs for layer in layers}) > 1:
        return
    if any(layer.node.input[0] != node.output[0] for layer in layers):
        return
    affine = affine_of(wiring, at, layers[0].inputs, layers[0].rank)
    if affine is None:
        return
    if affine.shift.any() and not all(unpadded(layer) for layer in layers):
        moved = _moved(wiring, at, affine, layers[0])
        if moved is None:
            return
        affine = moved
    else:
        wiring.replace(at, None)
    ones = np.ones(layers[0].inputs)
    for layer in layers:
        bias = layer.bias
        if affine.shift.any():
            shifted = layer.times(affine.shift * ones, outputs=False).sum(axis=tuple(range(2, layer.rank + 1)))
            bias = shifted.reshape(-1) if bias is None else shifted.reshape(-1) + bias
        renew(layer, layer.times(affine.scale * ones, outputs=False), bias, data=affine.data)


def _moved(wiring: Wiring, at: int, shift: Affine, layer: Layer) -> Affine | None:
    """Move what is added at `at` in front of the multiplication before it: x s + b = (x + b / s) s; what is left to be folded is s."""
    node, before = wiring.nodes[at], wiring.maker(shift.data)
    scaling = (
        None
        if before is None or wiring.reader(shift.data) != at
        else affine_of(wiring, before, layer.inputs, layer.rank)
    )
    if node is None or before is None or scaling is None or shift.scale != 1.0 or scaling.shift.any():
        return None
    value = shift.shift / scaling.scale
    added = wiring.constant(
        f"{node.output[0]}_shift", value.reshape(-1, *[1] * (layer.rank - 2)) if value.ndim else value
    )
    made = wiring.name(f"{node.output[0]}_unscaled")
    wiring.replace(at, helper.make_node("Add", [scaling.data, added], [made], name=node.name))
    wiring.replace(before, None)
    return Affine(made, scaling.scale, np.array(0.0))
