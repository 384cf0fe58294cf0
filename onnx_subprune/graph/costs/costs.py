"""Parameters and multiply-accumulates of a model as functions of the widths of its groups.

Every size is linear in the widths (a channel owns r positions of an axis), every cost a sum of products of sizes: those that `count` finds in the
model that is written, before it is.

Work is the time of a run in units of a multiply-accumulate of a large convolution, where kernels compute blocks of b output channels at once, as
onnxruntime's do (16 on a CPU with AVX-512, 8 with AVX2). A convolution of i channels to o takes i (b ceil(o / b) + b / 4); inputs are
read in whole blocks too, but fewer than b of them one by one, where each takes as long as 1.65 of a block. A multiply-accumulate of a
depthwise convolution takes as long as three, and what is neither contracted nor fused into a contraction takes twelve a number. All is measured
with onnxruntime 1.32 on one thread: 0.018 to 0.02 ns a multiply-accumulate, 0.05 to 0.07 of a depthwise one, 0.2 to 0.45 ns a number of Mul,
HardSwish or Sigmoid; a block alone takes 1.1 to 1.3 times as long as one of four together. A unit of a recurrent layer costs some hundred a
step beside its products: its activations, an RNN's Tanh one number at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnx_subprune.allocation import Factor, Multilinear, Term
from onnx_subprune.graph.channels import Axis, ChannelGraph, Contraction, Use
from onnx_subprune.graph.contractions.bias import new_biases, refitted_by
from onnx_subprune.graph.costs.count import (
    FLOATING,
    all_shapes,
    macs_of,
    parameters,
    parameters_inside,
    stored,
)
from onnx_subprune.graph.costs.pointwise import pointwise, saved
from onnx_subprune.graph.costs.products import product_of_activations
from onnx_subprune.graph.costs.sizes import Sizes, folded, shape_of
from onnx_subprune.graph.costs.units import units
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.sharing import Readers, readers_of_constants

DEPTHWISE = 3.0
"""Work of a multiply-accumulate of a depthwise convolution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The costs of a model; called with widths by group name, a group that is absent has its full width.

    folded: the work of nodes that the written model does without at any widths; `work` is without it.
    """

    params: Multilinear
    macs: Multilinear
    work: Multilinear
    folded: float


def costs(network: Network, graph: ChannelGraph, block: int = 1, *, refitted: bool = False) -> Costs:
    """Return the costs of `network` as functions of the widths of the groups of `graph`; work is that of kernels with blocks of `block`.

    refitted: count what refits may add to the parameters: biases where there were none, and copies of constants that had several uses. Without
    widths, {}, all are those of the model as it is.
    """
    sizes, timed = Sizes(network, graph), Sizes(network, graph, block)
    full = {group.name: group.width for group in graph.groups}
    terms = tuple(_parameters(network, graph, sizes, refitted=refitted))
    return Costs(
        params=Multilinear(terms=terms, full=full, base=float(parameters(network))),
        macs=Multilinear(terms=tuple(_macs(network, graph, sizes)), full=full),
        work=Multilinear(terms=tuple(_work(network, graph, timed)), full=full),
        folded=saved(network, graph, timed),
    )


def _parameters(network: Network, graph: ChannelGraph, sizes: Sizes, *, refitted: bool) -> list[Term]:
    """The constants that the file of a pruned model holds: one for each way to slice a constant, or to refit it."""
    held, readers = stored(network), readers_of_constants(network)
    own = refitted_by(network, graph, readers) if refitted else {}
    terms, gone = list[Term](), set[str]()
    for tensor, reading in readers.items():
        if not reading.uses or tensor in network.spelled.added or not _floating(network, tensor):
            continue
        versions = _versions(network, graph, sizes, reading, own)
        sliced = any(term.factors for term in versions.values())
        if reading.others and tensor in held:
            versions.setdefault(("whole", None), Term(coefficient=float(held[tensor]), factors=()))
        else:
            nodes = {use.node for use in reading.uses}
            versions = {key: sizes.vanishing.stored(nodes, term) for key, term in versions.items()}
        if tensor in held:
            terms += versions.values()
        elif sliced:  # its value takes the place of what it is computed from
            terms += versions.values()
            gone |= network.ancestors([tensor], ())[1]
    rest = [size for tensor, size in held.items() if not readers[tensor].uses and tensor not in gone]
    inside = [size for node in network.nodes for size in parameters_inside(node).values()]
    added = [sizes.factor(*place) for place in new_biases(network, graph)] if refitted else []

    def channels(axis: Axis) -> Factor:
        return sizes.factor(axis, graph.observation.shapes[axis.tensor][axis.index])

    terms += [*sizes.vanishing.added(channels), *(sizes.vanishing.means(channels) if refitted else ())]
    fixed = Term(coefficient=float(sum(rest) + sum(inside)), factors=())
    return [*terms, fixed, *(folded(1.0, [factor]) for factor in added)]


def _versions(
    network: Network, graph: ChannelGraph, sizes: Sizes, reading: Readers, own: Mapping[Use, Use]
) -> dict[object, Term]:
    """What becomes of one constant: a term for each way in which its uses slice it, and for each that refits it by itself."""
    contractions = {contraction.weight: contraction for contraction in graph.contractions}
    versions: dict[object, Term] = {}
    for use, root in reading.uses.items():
        coefficient, factors = _weight(
            network, network.node(use.node).input[use.slot], use, contractions.get(use), sizes
        )
        turned = tuple(factors[at] for at in np.argsort([root.axis(index) for index in range(len(factors))]))
        key = turned if any(factor.slopes for factor in turned) else "whole"
        versions.setdefault((key, own.get(use)), folded(coefficient, factors))
    return versions


def _weight(
    network: Network, name: str, use: Use, contraction: Contraction | None, sizes: Sizes
) -> tuple[float, list[Factor]]:
    shape = shape_of(network, name)
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
    return coefficient, factors


def _macs(network: Network, graph: ChannelGraph, sizes: Sizes) -> list[Term]:
    shapes = all_shapes(network, graph.observation)
    held: dict[str, list[Contraction]] = {}
    for contraction in graph.contractions:
        held.setdefault(contraction.node, []).append(contraction)
    terms = list[Term]()
    for index, label in enumerate(network.labels):
        if label in held:
            found = [_contraction(network, graph, contraction, sizes) for contraction in held[label]]
        else:
            found = product_of_activations(network, graph, label, sizes)
        if not found and label not in held and (macs := macs_of(network, index, shapes, graph.observation)):
            found = [Term(coefficient=macs, factors=())]
        terms += [sizes.vanishing.gated([label], term) for term in found]
    return terms


def _work(network: Network, graph: ChannelGraph, sizes: Sizes) -> list[Term]:
    """What is multiplied as kernels with blocks do it, and, where these count, what is neither multiplied nor fused."""
    terms = _macs(network, graph, sizes)
    if sizes.timed:
        terms += pointwise(network, graph, sizes)
        terms += [
            units(network, graph, item, sizes) for item in graph.contractions if item.internal and item.weight.slot == 2
        ]
    return terms


def _contraction(network: Network, graph: ChannelGraph, contraction: Contraction, sizes: Sizes) -> Term:
    weight = contraction.weight_tensor
    coefficient, factors = _weight(network, weight, contraction.weight, contraction, sizes)
    if contraction.internal:  # one product for each step and sample
        data = network.node(contraction.node).input[0]
        return folded(coefficient / graph.observation.batch, [*factors, *sizes.activation(data)[:2]])
    positions = contraction.input if contraction.op == "ConvTranspose" else contraction.output
    inside = {positions.index, positions.index - 1} if contraction.stacked else {positions.index}
    others = [factor for axis, factor in enumerate(sizes.activation(positions.tensor)) if axis not in inside]
    return folded(coefficient / graph.observation.batch, [*factors, *others])


def _floating(network: Network, name: str) -> bool:
    if name in network.initializers:
        return network.initializers[name].data_type in FLOATING
    return network.array(name).dtype.kind == "f"
