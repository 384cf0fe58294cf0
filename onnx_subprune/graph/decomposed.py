"""Normalisations over channels that a file has in elementary operators, found from their root.

    centred = x - mean(x),  root = sqrt(mean(centred^2) + epsilon),  y = centred / root * scale + shift

with or without the mean; the variance as a mean of squares less a squared mean; the scale times the inverse root, or times what is divided.
"""

from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto

from onnx_subprune._typing import Array
from onnx_subprune.graph.normalization import Place
from onnx_subprune.graph.operators import STANDARD
from onnx_subprune.graph.stored import Stored

BROADCAST = frozenset(("Expand", "Identity", "Max", "Reshape", "Squeeze", "Unsqueeze"))
"""What a mean may go through: changes of layout, and a bound from below."""
PASSED = frozenset(("Cast", "Expand", "Identity", "Reshape", "Reciprocal", "Unsqueeze"))
"""What the root may go through before it is scaled."""
LONGEST = 8
"""Nodes between a statistic and what is made of it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reduction:
    """A mean over channels: `node` along `axis`, with `number` as in `Mean`. weight: what its input is to be multiplied with."""

    node: NodeProto
    axis: int
    keep: int
    weight: Array
    number: Place | None
    inverse: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """A normalisation; see `Normalization`."""

    source: str
    reductions: tuple[Reduction, ...]
    centred: bool
    variance: str
    epsilon: Place
    scale: Place


def normalizations_in(proto: ModelProto, constants: Stored) -> list[Found]:
    """Return the decomposed normalisations of a model, in order; every reduction belongs to one."""
    found, taken = list[Found](), set[str]()
    for node in proto.graph.node:
        if node.op_type in ("Sqrt", "Pow") and node.domain in STANDARD:
            one = _Search(constants).at(node)
            names = set() if one is None else {item.node.output[0] for item in one.reductions}
            if one is not None and not names & taken:
                found.append(one)
                taken |= names
    return found


class _Search:
    """Looks for the parts of one normalisation."""

    def __init__(self, constants: Stored) -> None:
        self._constants = constants

    def at(self, root: NodeProto) -> Found | None:
        """Return the normalisation with this root."""
        if root.op_type == "Pow" and self._constants.number(root.input[1]) not in (0.5, -0.5):
            return None
        add = self._constants.producer(root.input[0])
        if add is None or add.op_type != "Add":
            return None
        slot = next((at for at in (0, 1) if self._constants.number(add.input[at]) is not None), None)
        scale = self._scale(root.output[0])
        if slot is None or scale is None:
            return None
        dtype = self._constants.small(add.input[slot])
        shape = self._constants.shape(self._operand(scale))
        if dtype is None or dtype.dtype.kind != "f" or dtype.dtype == np.float16:
            return None
        self._shape, self._dtype = self._channels(shape), dtype.dtype
        parts = self._parts(self._behind(add.input[1 - slot]))
        if parts is None:
            return None
        source, reductions, centred = parts
        return Found(
            source=source,
            reductions=tuple(reductions),
            centred=centred,
            variance=add.input[1 - slot],
            epsilon=(add.output[0], slot),
            scale=scale,
        )

    def _operand(self, place: Place) -> str:
        node = self._constants.producer(place[0])
        assert node is not None, "a place is in a node"
        return str(node.input[place[1]])

    @staticmethod
    def _channels(shape: tuple[int, ...]) -> tuple[int, ...]:
        """A shape without leading ones."""
        first = next(at for at, size in enumerate(shape) if size > 1)
        return shape[first:]

    def _scale(self, name: str) -> Place | None:
        """The first constant with a number for each channel that a root, or its inverse, is multiplied with."""
        for _ in range(LONGEST):
            readers = self._constants.readers(name)
            if len(readers) != 1 or name in self._constants.outputs or readers[0].domain not in STANDARD:
                return None
            node = readers[0]
            other = next((item for item in node.input if item != name), "")
            if node.op_type == "Mul" and self._constants.known(other):
                sizes = [size for size in self._constants.shape(other) if size != 1]
                slot = [*node.input].index(other)
                return (node.output[0], slot) if len(sizes) == 1 and sizes[0] > 1 else None
            through = node.op_type in PASSED and node.input[0] == name
            divided = node.op_type == "Div" and node.input[1] == name
            if not (through or divided or (node.op_type == "Mul" and node.input[0] != node.input[1])):
                return None
            name = node.output[0]
        return None

    def _behind(self, name: str) -> str:
        """What a tensor is but for its layout, and a bound from below."""
        for _ in range(LONGEST):
            node = self._constants.producer(name)
            if node is None or node.op_type not in BROADCAST:
                return name
            free = [item for item in node.input if not self._constants.known(item)]
            if node.op_type == "Max" and (len(node.input) != 2 or len(free) != 1):
                return name
            name = free[0] if node.op_type == "Max" else node.input[0]
        return name

    def _parts(self, variance: str) -> tuple[str, list[Reduction], bool] | None:
        """What is normalised, the means of it, and whether the mean is taken off."""
        node = self._constants.producer(variance)
        if node is not None and node.op_type == "Sub":
            of_squares, squared = self._mean(self._behind(node.input[0])), self._root_of(node.input[1])
            mean = None if squared is None else self._mean(self._behind(squared))
            if of_squares is None or mean is None:
                return None
            source = self._root_of(of_squares.node.input[0])
            return (source, [mean, of_squares], True) if source and source == mean.node.input[0] else None
        of_squares = self._mean(variance)
        source = None if of_squares is None else self._root_of(of_squares.node.input[0])
        if of_squares is None or source is None:
            return None
        centred = self._constants.producer(source)
        if centred is not None and centred.op_type == "Sub":
            mean = self._mean(self._behind(centred.input[1]))
            if mean is not None and mean.node.input[0] == centred.input[0]:
                return centred.input[0], [mean, of_squares], True
        return source, [of_squares], False

    def _root_of(self, name: str) -> str | None:
        """What a tensor is the square of."""
        node = self._constants.producer(name)
        if node is None:
            return None
        squared = node.op_type == "Mul" and node.input[0] == node.input[1]
        power = node.op_type == "Pow" and self._constants.number(node.input[1]) == 2
        return node.input[0] if squared or power else None

    def _mean(self, name: str) -> Reduction | None:
        """The mean over channels that a tensor is."""
        node = self._constants.producer(name)
        if node is None:
            return None
        size = int(np.prod(self._shape))
        if node.op_type == "ReduceMean" or self._pools_channels(node):
            return self._reduction(node, np.full(self._shape, 1 / size, self._dtype), None, inverse=False)
        slot = next((at for at in (1, 0) if self._constants.number(node.input[at]) is not None), None) if (
            node.op_type in ("Mul", "Div") and len(node.input) == 2
        ) else None  # fmt: skip
        if slot is None or (node.op_type == "Div" and slot == 0):
            return None
        summed, number = self._constants.producer(node.input[1 - slot]), self._constants.number(node.input[slot])
        inverse = node.op_type == "Mul"
        if summed is None or summed.op_type != "ReduceSum" or not number:
            return None
        if not np.isclose(1 / number if inverse else number, size, rtol=1e-5):
            return None
        return self._reduction(summed, np.ones(self._shape, self._dtype), (node.output[0], slot), inverse=inverse)

    def _pools_channels(self, node: NodeProto) -> bool:
        """True for a mean over the last of three axes, as which tf2onnx writes one over channels that come last."""
        return node.op_type == "GlobalAveragePool" and self._constants.rank(node.input[0]) == 3

    def _reduction(self, node: NodeProto, weight: Array, number: Place | None, *, inverse: bool) -> Reduction | None:
        axes = next((list(item.ints) for item in node.attribute if item.name == "axes"), [])
        if len(node.input) > 1 and node.input[1]:
            value = self._constants.small(node.input[1])
            axes = [] if value is None else value.ravel().tolist()
        axes = [2] if self._pools_channels(node) else axes
        keep = next((int(item.i) for item in node.attribute if item.name == "keepdims"), 1)
        if len(axes) != 1 or node.output[0] in self._constants.outputs:
            return None
        last = axes[0] if axes[0] < 0 else axes[0] - self._constants.rank(node.input[0])
        if last != -weight.ndim or axes[0] >= self._constants.rank(node.input[0]) > 0:
            return None
        return Reduction(node=node, axis=int(axes[0]), keep=keep, weight=weight, number=number, inverse=inverse)
