"""The body of a Loop: what its tensors are as sums of products with constants, and which operators make them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper

from onnx_subprune._typing import Array, Float64
from onnx_subprune.graph.operators import STANDARD, attribute, integer, whole_shape

LAST = (-1, 1)
"""The last axis of what has two: samples and units."""
BEYOND = 1 << 30
"""An end of a Slice from here on is that of the axis."""


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """A sum of products of tensors, by name, each (samples, k), with matrices (k, n), and of numbers, (n,) or (1,)."""

    terms: Mapping[str, Float64]
    offset: Float64

    def plus(self, other: "Affine") -> "Affine | None":
        """Return the sum; None where one is broadcast, but for a number that is added to all columns."""
        number = any(not item.terms and item.width == 1 for item in (self, other))
        if self.width != other.width and not number:
            return None
        terms = dict(self.terms)
        for name, matrix in other.terms.items():
            terms[name] = terms[name] + matrix if name in terms else matrix
        return Affine(terms, self.offset + other.offset)

    def __mul__(self, factor: float) -> "Affine":
        """Return `factor` times this."""
        return Affine({name: matrix * factor for name, matrix in self.terms.items()}, self.offset * factor)

    def part(self, start: int, stop: int) -> "Affine":
        """Return some of the columns."""
        terms = {name: matrix[:, start:stop] for name, matrix in self.terms.items()}
        return Affine(terms, np.broadcast_to(self.offset, (self.width,))[start:stop])

    @property
    def width(self) -> int:
        """The number of columns, n."""
        return next((matrix.shape[1] for matrix in self.terms.values()), len(self.offset))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Body:
    """The nodes of a body by what they make. values: constants, by name, also those that it is given or computes of others."""

    made: Mapping[str, NodeProto]
    values: Mapping[str, Array]
    _known: dict[str, Affine | None] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: GraphProto, values: Mapping[str, Array]) -> "Body":
        """Return that of a graph."""
        nodes = (node for node in graph.node if node.domain in STANDARD)
        return cls(made={name: node for node in nodes for name in node.output if name}, values=values)

    def source(self, name: str) -> str:
        """Return the tensor that `name` is another name of, or that times ones: what dropout leaves of its mask."""
        while name in self.made:
            node = self.made[name]
            same = node.input[0] if node.op_type == "Identity" else self._times_ones(node)
            if same is None:
                break
            name = same
        return name

    def _times_ones(self, node: NodeProto) -> str | None:
        if node.op_type != "Mul":
            return None
        for tensor, ones in (node.input, node.input[::-1]):
            filled = self.made.get(ones)
            value = attribute(filled, "value") if filled is not None and filled.op_type == "ConstantOfShape" else None
            shape = self.made.get(filled.input[0]) if filled is not None and value is not None else None
            if shape is not None and whole_shape(shape) and list(shape.input) == [tensor]:
                assert isinstance(value, TensorProto), "its type says so"
                if (numpy_helper.to_array(value) == 1).all():
                    return str(tensor)
        return None

    def node(self, name: str, *operators: str) -> NodeProto | None:
        """Return the node that makes a tensor, if it is one of these operators."""
        node = self.made.get(self.source(name))
        return node if node is not None and node.op_type in operators else None

    def number(self, name: str) -> float | None:
        """Return a constant whose numbers are all the same."""
        value = self.values.get(self.source(name))
        same = value is not None and value.size and value.dtype.kind in "fiu" and np.ptp(value) == 0
        return float(value.flat[0]) if same and value is not None else None

    def orders(self, name: str, operator: str) -> Iterator[tuple[str, str]]:
        """Yield the two operands of a node, in both orders; nothing where another operator makes the tensor."""
        node = self.node(name, operator)
        if node is not None and len(node.input) > 1:
            yield node.input[0], node.input[1]
            yield node.input[1], node.input[0]

    def affine(self, name: str) -> Affine | None:
        """Return the sum of products that a tensor is; None for none."""
        name = self.source(name)
        if name not in self._known:
            self._known[name] = self._affine(name)
        return self._known[name]

    def _affine(self, name: str) -> Affine | None:
        value = self.values.get(name)
        if value is not None:
            row = value.size == (value.shape[-1] if value.ndim else 1)
            return Affine({}, value.reshape(-1).astype(np.float64)) if row and value.dtype.kind == "f" else None
        node = self.made.get(name)
        if node is None:
            return None
        if node.op_type == "MatMul":
            return self._product(node)
        if node.op_type == "Gemm":
            return self._gemm(node)
        if node.op_type == "Add":
            one, other = self.affine(node.input[0]), self.affine(node.input[1])
            return one.plus(other) if one is not None and other is not None else None
        if node.op_type in ("Mul", "Div"):
            return self._scaled(node)
        if node.op_type == "Split":
            return self._split(node, name)
        return self._sliced(node) if node.op_type == "Slice" else None

    def _product(self, node: NodeProto) -> Affine | None:
        matrix = self.values.get(self.source(node.input[1]))
        if matrix is None or matrix.ndim != 2:
            return None
        return Affine({self.source(node.input[0]): matrix.astype(np.float64)}, np.zeros(1))

    def _gemm(self, node: NodeProto) -> Affine | None:
        matrix = self.values.get(self.source(node.input[1]))
        if matrix is None or integer(node, "transA", 0):
            return None
        alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
        assert isinstance(alpha, float), "its type says so"
        assert isinstance(beta, float), "its type says so"
        matrix = matrix.T if integer(node, "transB", 0) else matrix
        product = Affine({self.source(node.input[0]): matrix.astype(np.float64)}, np.zeros(1)) * alpha
        if len(node.input) < 3 or not node.input[2]:
            return product
        added = self.affine(node.input[2])
        return product.plus(added * beta) if added is not None else None

    def _scaled(self, node: NodeProto) -> Affine | None:
        for one, other in ((0, 1), (1, 0))[: 1 if node.op_type == "Div" else 2]:
            factor, found = self.number(node.input[other]), self.affine(node.input[one])
            if factor and found is not None:
                return found * (1.0 / factor if node.op_type == "Div" else factor)
        return None

    def _split(self, node: NodeProto, name: str) -> Affine | None:
        whole = self.affine(node.input[0])
        if whole is None or integer(node, "axis", 0) not in LAST:
            return None
        sizes = attribute(node, "split") or (
            self.values.get(self.source(node.input[1])) if len(node.input) > 1 else None
        )
        each = -(-whole.width // len(node.output))
        ends = np.cumsum([each] * len(node.output) if sizes is None else np.asarray(sizes)).clip(max=whole.width)
        which = list(node.output).index(name)
        return whole.part(int(ends[which - 1]) if which else 0, int(ends[which]))

    def _sliced(self, node: NodeProto) -> Affine | None:
        """Some columns of all samples."""
        whole, given = self.affine(node.input[0]), [self.values.get(self.source(name)) for name in node.input[1:]]
        if whole is None or len(given) < 3 or any(item is None for item in given):
            return None
        starts, ends, axes, *steps = [np.atleast_1d(item) for item in given if item is not None]
        if any((step != 1).any() for step in steps):
            return None
        first, last = 0, whole.width
        for start, end, axis in zip(starts, ends, axes, strict=True):
            if axis in LAST:
                first, last, _ = slice(int(start), int(end)).indices(whole.width)
            elif start != 0 or end < BEYOND:
                return None
        return whole.part(first, last)
