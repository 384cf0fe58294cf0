"""What nodes do that scale or shift channels, and the convolutions that can take it over."""

from dataclasses import dataclass
from math import prod

import numpy as np
from onnx import NodeProto

from onnx_subprune._typing import Float64
from onnx_subprune.graph.folding.wiring import Wiring
from onnx_subprune.graph.operators import attribute, key_of, set_input

CONVOLUTIONS = ("Conv", "ConvTranspose")
LARGEST = 1e4
"""Numbers that scale, and 1 over them, are below: others are left alone, as what they leave of other numbers may be rounding."""


@dataclass(frozen=True, slots=True)
class Affine:
    """A node that makes `scale` times `data` plus `shift` of it, each one number or one a channel."""

    data: str
    scale: Float64
    shift: Float64


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A convolution whose constants nothing else reads, at a place; weight: its shape."""

    wiring: Wiring
    place: int
    node: NodeProto
    weight: tuple[int, ...]
    groups: int
    transposed: bool

    @property
    def inputs(self) -> int:
        """Channels that it reads."""
        return self.weight[0] if self.transposed else self.weight[1] * self.groups

    @property
    def outputs(self) -> int:
        """Channels that it makes."""
        return self.weight[1] * self.groups if self.transposed else self.weight[0]

    @property
    def rank(self) -> int:
        """Axes of what it reads."""
        return len(self.weight)

    @property
    def bias(self) -> Float64 | None:
        """What it adds, (outputs,); None for nothing."""
        return self.wiring.value(self.node.input[2]) if len(self.node.input) > 2 and self.node.input[2] else None

    def times(self, scale: Float64, *, outputs: bool) -> Float64:
        """Return the weight with one number for each channel that it makes, or that it reads, multiplied in.

        It is (groups, outputs, inputs, ...) or, transposed, (groups, inputs, outputs, ...).
        """
        value = self.wiring.value(self.node.input[1])
        assert value is not None, "its shape is known"
        apart = value.reshape(self.groups, self.weight[0] // self.groups, *self.weight[1:])
        inner = [1, -1] if outputs == self.transposed else [-1, 1]
        return apart * scale.reshape(self.groups, *inner, *[1] * (apart.ndim - 3))


def affine_of(wiring: Wiring, at: int, channels: int, rank: int = 0) -> Affine | None:
    """Return what an elementwise node with one constant does; channels: how many numbers the constant may have beside 1, along axis 1 of `rank`."""
    node = wiring.nodes[at]
    if node is None or key_of(node) not in ("Add", "Sub", "Mul", "Div") or len(node.input) != 2:
        return None
    known = [slot for slot, name in enumerate(node.input) if wiring.shape(name) is not None]
    shape = wiring.shape(node.input[known[0]]) if len(known) == 1 else None
    if shape is None or len(shape) > max(rank, 1):
        return None
    if prod(shape) != 1 and (prod(shape) != channels or len(shape) < rank - 1 or shape[1 - rank] != channels):
        return None
    slot, value = known[0], wiring.value(node.input[known[0]])
    if value is None or not np.isfinite(value).all():
        return None
    number = value.reshape(-1) if value.size > 1 else value.reshape(())
    kind, data = key_of(node), node.input[1 - slot]
    if kind in ("Add", "Sub"):
        first = kind == "Sub" and slot == 0
        return Affine(data, np.array(-1.0 if first else 1.0), -number if kind == "Sub" and not first else number)
    if (kind == "Div" and slot == 0) or not ((np.abs(number) < LARGEST) & (np.abs(number) > 1.0 / LARGEST)).all():
        return None
    return Affine(data, 1.0 / number if kind == "Div" else number, np.array(0.0))


def layer_of(wiring: Wiring, at: int) -> Layer | None:
    """Return the convolution at `at`, if it is one that can change."""
    node = wiring.nodes[at]
    if (
        node is None
        or key_of(node) not in CONVOLUTIONS
        or any(wiring.reader(name) != at for name in node.input[1:] if name)
    ):
        return None
    shapes = [wiring.shape(name) for name in node.input[1:] if name]
    groups = attribute(node, "group", 1)
    assert isinstance(groups, int), "its type says so"
    if not shapes or shapes[0] is None or None in shapes:
        return None
    transposed = key_of(node) == "ConvTranspose"
    return Layer(wiring=wiring, place=at, node=node, weight=shapes[0], groups=groups, transposed=transposed)


def normalization_of(wiring: Wiring, layer: Layer, at: int) -> Affine | None:
    """Return what a BatchNormalization behind a transposed convolution does; runtimes fold those behind others by themselves."""
    node = wiring.nodes[at]
    if (
        node is None
        or not layer.transposed
        or key_of(node) != "BatchNormalization"
        or attribute(node, "training_mode", 0)
    ):
        return None
    found = [wiring.value(name) for name in node.input[1:]]
    if len(node.output) > 1 or len(found) != 4 or any(value is None for value in found):
        return None
    gamma, beta, mean, variance = (value for value in found if value is not None)
    epsilon = attribute(node, "epsilon", 1e-5)
    assert isinstance(epsilon, float), "its type says so"
    scale = gamma / np.sqrt(variance + epsilon)
    return Affine(node.input[0], scale, beta - mean * scale) if np.isfinite(scale).all() else None


def unpadded(layer: Layer) -> bool:
    """Return whether a convolution reads no zeros beside its input, so that what is added to that is added to every sum."""
    pads, way = attribute(layer.node, "pads", []), attribute(layer.node, "auto_pad", b"NOTSET")
    assert isinstance(pads, list), "its type says so"
    return not layer.transposed and not any(pads) and way in (b"NOTSET", b"VALID")


def renew(
    layer: Layer,
    apart: Float64,
    bias: Float64 | None,
    *,
    data: str | None = None,
    made: str | None = None,
) -> None:
    """Give a layer another weight, (groups, ...), another bias, and what it reads or makes other names."""
    new = NodeProto()
    new.CopyFrom(layer.node)
    new.input[0] = data or new.input[0]
    new.output[0] = made or new.output[0]
    wiring, weight = layer.wiring, apart.reshape(-1, *apart.shape[2:])
    set_input(new, 1, wiring.constant(f"{new.input[1]}_folded", weight))
    if bias is not None:
        stem = new.input[2] if len(new.input) > 2 and new.input[2] else f"{new.input[1]}_bias"
        set_input(new, 2, wiring.constant(f"{stem}_folded", bias))
    wiring.replace(layer.place, new)
