"""Parameters and multiply-accumulates of a model as functions of the widths of its groups.

Every size is linear in the widths (a channel owns r positions of an axis), every cost a sum of products of sizes. Parameters are
the elements of the floating-point constants that nodes read, shared ones counted once; multiply-accumulates are those of
convolutions and matrix products, for one sample.

Work is the time of a run in units of a multiply-accumulate of a large convolution, where kernels compute blocks of b output channels at once, as
onnxruntime's do (16 on a CPU with AVX-512, 8 with AVX2). A convolution of i channels to o takes i (b ceil(o / b) + b / 4); inputs are
read in whole blocks too, but fewer than b of them one by one. A multiply-accumulate of a depthwise convolution takes as long as three, and what is
neither contracted nor fused into a contraction takes twelve a number. All is measured with onnxruntime 1.32 on one thread: 0.018 to
0.02 ns a multiply-accumulate, 0.05 to 0.07 of a depthwise one, 0.2 to 0.45 ns a number of Mul, HardSwish or Sigmoid; a block alone takes
1.1 to 1.3 times as long as one of four together.
"""

from dataclasses import dataclass, replace

import numpy as np

from onnx_subprune.allocation import Factor, Multilinear, Term
from onnx_subprune.graph.channels import Axis, ChannelGraph, Contraction, Use
from onnx_subprune.graph.network import Network, key_of

OVERHEAD = 1 / 4
"""What a convolution takes beside its outputs, in blocks of them."""
DEPTHWISE, POINTWISE = 3.0, 12.0
"""Work of a multiply-accumulate of a depthwise convolution, and of a number that an operator makes which is not fused."""
FUSED = frozenset(
    [
        "Add",
        "BatchNormalization",
        "Clip",
        "Flatten",
        "HardSigmoid",
        "Identity",
        "LeakyRelu",
        "Relu",
        "Reshape",
        "Sigmoid",
        "Squeeze",
        "Tanh",
        "Unsqueeze",
    ]
)
"""Operators that take hardly any time: runtimes fuse them into the layer before, or only name a tensor anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The costs of a model; called with widths by group name, a group that is absent has its full width."""

    params: Multilinear
    macs: Multilinear
    work: Multilinear


def costs(network: Network, graph: ChannelGraph, block: int = 1) -> Costs:
    """Return the costs of `network` as functions of the widths of the groups of `graph`; work is that of kernels with blocks of `block`."""
    sizes = Sizes(network, graph)
    full = {group.name: group.width for group in graph.groups}
    return Costs(
        params=Multilinear(terms=tuple(_parameters(network, graph, sizes)), full=full),
        macs=Multilinear(terms=tuple(_macs(network, graph, sizes)), full=full),
        work=Multilinear(terms=tuple(_work(network, graph, Sizes(network, graph, block))), full=full),
    )


def parameters(network: Network) -> int:
    """Return the parameters of `network` as it is."""
    read = {
        name
        for node in network.nodes
        if not network.constants.issuperset(name for name in node.output if name)
        for name in node.input
        if name in network.constants and _floating(network, name)
    }
    return sum(int(np.prod(_shape(network, name), dtype=np.int64)) for name in read)


def _shape(network: Network, name: str) -> tuple[int, ...]:
    return tuple(network.initializers[name].dims) if name in network.initializers else network.array(name).shape


class Sizes:
    """The size of any axis as a factor: offset + sum of slope * width."""

    def __init__(self, network: Network, graph: ChannelGraph, block: int = 1) -> None:
        self._network, self._graph, self._block = network, graph, block
        self._slopes: dict[Axis, dict[str, int]] = {}
        self.widths = {group.name: group.width for group in graph.groups}
        for group in graph.groups:
            for part in group.slices:
                self._slopes.setdefault(part.axis, {})[group.name] = part.positions.shape[1]

    def factor(self, axis: Axis, size: int) -> Factor:
        """Return the size of an axis that has `size` positions in the unpruned model."""
        slopes = self._slopes.get(axis, {})
        return Factor(offset=size - sum(self.widths[name] * slope for name, slope in slopes.items()), slopes=slopes)

    def read(self, factor: Factor) -> Factor:
        """The factor of the channels that a kernel reads."""
        return replace(factor, block=self._block, partial=True) if self._block > 1 else factor

    def written(self, factor: Factor) -> Factor:
        """The factor of the channels that a kernel writes."""
        return replace(factor, block=self._block, extra=OVERHEAD * self._block) if self._block > 1 else factor

    def carried(self, factor: Factor) -> Factor:
        """The factor of the channels that a depthwise convolution carries on."""
        return replace(factor, block=self._block) if self._block > 1 else factor

    @property
    def timed(self) -> bool:
        """True if work is not what is multiplied."""
        return self._block > 1

    def activation(self, tensor: str) -> list[Factor]:
        """Return the sizes of all axes of an activation."""
        shape = self._graph.observation.shapes[tensor]
        return [self.factor(Axis(tensor, index), size) for index, size in enumerate(shape)]


def _parameters(network: Network, graph: ChannelGraph, sizes: Sizes) -> list[Term]:
    contractions = {contraction.weight: contraction for contraction in graph.contractions}
    versions: dict[tuple[str, tuple[Factor, ...]], Term] = {}
    for label, node in zip(network.labels, network.nodes, strict=True):
        if network.constants.issuperset(name for name in node.output if name):
            continue
        for slot, name in enumerate(node.input):
            if name in network.constants and _floating(network, name):
                use = Use(label, slot)
                term = _weight(network, name, use, contractions.get(use), sizes)
                versions.setdefault((name, term.factors), term)
    return list(versions.values())


def _weight(network: Network, name: str, use: Use, contraction: Contraction | None, sizes: Sizes) -> Term:
    shape = _shape(network, name)
    factors = [sizes.factor(Axis(name, index, use), size) for index, size in enumerate(shape)]
    coefficient = 1.0
    if contraction is not None and contraction.op == "Conv" and contraction.groups == 1:
        factors[1], factors[0] = sizes.read(factors[1]), sizes.written(factors[0])
    if contraction is not None and contraction.groups > 1:
        depth = shape[1]
        stacked, inner = (
            (contraction.columns, contraction.rows)
            if contraction.columns.index == 0
            else (contraction.rows, contraction.columns)
        )
        factors[0] = sizes.factor(stacked, shape[0])
        factors[1] = (
            Factor(offset=depth, slopes={})
            if contraction.whole_groups
            else sizes.factor(inner, depth * contraction.groups)
        )
        coefficient = 1.0 if contraction.whole_groups else 1.0 / contraction.groups
        if contraction.whole_groups and sizes.timed:
            coefficient, factors[0] = DEPTHWISE, sizes.carried(factors[0])
    return _term(coefficient, factors)


def _macs(network: Network, graph: ChannelGraph, sizes: Sizes) -> list[Term]:
    terms = []
    held: dict[str, list[Contraction]] = {}
    for contraction in graph.contractions:
        held.setdefault(contraction.node, []).append(contraction)
    for label, node in zip(network.labels, network.nodes, strict=True):
        if label in held:
            terms += [_contraction(network, graph, contraction, sizes) for contraction in held[label]]
        elif key_of(node) == "MatMul" and not network.constants.issuperset(node.output):
            factors = sizes.activation(node.output[0]) if node.output[0] in graph.observation.shapes else []
            inner = graph.observation.shapes.get(node.input[0])
            if factors and inner:
                factors.append(sizes.factor(Axis(node.input[0], len(inner) - 1), inner[-1]))
                terms.append(_term(1.0 / graph.observation.batch, factors))
    return terms


def _work(network: Network, graph: ChannelGraph, sizes: Sizes) -> list[Term]:
    """What is multiplied as kernels with blocks do it, and, where these count, what is neither multiplied nor fused."""
    return _macs(network, graph, sizes) + (pointwise(network, graph, sizes) if sizes.timed else [])


def pointwise(network: Network, graph: ChannelGraph, sizes: Sizes) -> list[Term]:
    """Return the work of what is neither multiplied nor fused."""
    terms = []
    contracting = {contraction.node for contraction in graph.contractions}
    for label, node in zip(network.labels, network.nodes, strict=True):
        made = next((name for name in node.output if name in graph.observation.shapes), None)
        if (
            sizes.timed
            and not network.constants.issuperset(node.output)
            and made is not None
            and label not in contracting
            and node.op_type not in FUSED | {"MatMul"}
        ):
            terms.append(_term(POINTWISE / graph.observation.batch, sizes.activation(made)))
    return terms


def _contraction(network: Network, graph: ChannelGraph, contraction: Contraction, sizes: Sizes) -> Term:
    weight = contraction.weight_tensor
    term = _weight(network, weight, contraction.weight, contraction, sizes)
    positions = contraction.input if contraction.op == "ConvTranspose" else contraction.output
    coefficient = term.coefficient / graph.observation.batch
    factors = list(term.factors)
    for axis, factor in enumerate(sizes.activation(positions.tensor)):
        if axis != positions.index:
            factors.append(factor)
    return _term(coefficient, factors)


def _term(coefficient: float, factors: list[Factor]) -> Term:
    """Fold what is constant into the coefficient."""
    for factor in factors:
        if not factor.slopes:
            coefficient *= factor.at({})
    return Term(coefficient=coefficient, factors=tuple(f for f in factors if f.slopes))


def _floating(network: Network, name: str) -> bool:
    if name in network.initializers:
        return network.initializers[name].data_type in FLOATING
    return network.array(name).dtype.kind == "f"


FLOATING = frozenset({1, 10, 11, 16})
"""float32, float16, float64, bfloat16 as onnx.TensorProto numbers them."""
