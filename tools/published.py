"""Methods of others for transformers, as published: whole heads and feed-forward units, or numbers of Q and K. The residual stream stays.

    norm        squared rows of the layer that reads a unit; the same share of every layer
    Wanda-sp    sum of |W| ||x||; the same share of every layer                                                        (An et al., AAAI 2024)
    FLAP        variance of x times the squared row, standardized in each layer; layers and kinds compete by what a unit
                costs, and what goes is replaced by its mean, in a bias                                                (the same)
    CORP        units by their energy, what goes regressed on what stays (ridge, with a constant); numbers of Q and K by
                the energy of the logits, with q_S (1 + M) k_S in place of q k, where positions are not rotated; the same
                share of both                                                                                          (Zhang and Yang, 2026)

Nothing is cut: what goes is written as a matrix in front of the layer that reads it, which puts out the same. Costs are those of the cut model, which are
linear in heads, units and numbers. Each method takes the smallest share that meets the budget.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parents[1]))

from onnx_subprune.graph.channels import Axis, ChannelGroup
from onnx_subprune.graph.costs.costs import costs
from onnx_subprune.graph.network import load
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.runtime.observing import observing
from tools.measures import Array, Numbers

BATCH, RIDGE, STEPS = 32, 1e-4, 50
Map = tuple[Numbers, Numbers | None]
"""What an input is multiplied with, and what is added then."""


@dataclass(frozen=True, eq=False)
class Part:
    """Units that one layer reads: their columns, (units, columns each). second, mean: of the input; groups: what gets smaller with them."""

    label: str
    groups: tuple[str, ...]
    units: np.ndarray
    rows: Numbers
    second: Numbers
    mean: Numbers


@dataclass(frozen=True, eq=False)
class Logits:
    """Numbers of Q and K: second moments of both, (heads, d, d)."""

    label: str
    group: str
    asked: Numbers
    keys: Numbers


class Transformer:
    """A model, its parts, and what they cost. kind: "macs" or "params"."""

    def __init__(self, path: Path, data: Mapping[str, Array], kind: str) -> None:
        self._network = load(path)
        graph = trace(self._network)
        found = costs(self._network, graph)
        self._cost = found.macs if kind == "macs" else found.params
        self._full = {group.name: group.width for group in graph.groups}
        products = [group for group in graph.groups if group.product is not None]
        read = [
            g for g in graph.groups if len(g.consumers) == 1 and g.consumers[0].contraction.op in ("MatMul", "Gemm")
        ]
        axes = [g.consumers[0].contraction.input for g in read]
        axes += [axis for g in products if g.product for axis in (g.product.left, g.product.right)]
        sums = self._moments(data, axes)
        asking = iter(products)
        self.parts = [self._part(g, asking, sums) for g in read if not g.product]
        self.logits = [
            Logits(g.product.node, g.name, sums[g.product.left][0], sums[g.product.right][0])
            for g in products
            if g.product and g.width == sums[g.product.left][0].shape[-1]  # rotated positions tie numbers in pairs
        ]

    def _part(self, group: ChannelGroup, asking: object, sums: Mapping[Axis, tuple[Numbers, Numbers]]) -> Part:
        contraction, units = group.consumers[0].contraction, group.consumers[0].positions
        weight = self._network.array(contraction.weight_tensor).astype(np.float64)
        weight = np.moveaxis(weight, contraction.rows.index, 0)
        names = [group.name]
        if units.shape[1] > 1:  # heads, with all queries that keys and values of one serve
            own = min(part.positions.shape[1] for part in group.slices if part.axis.use)
            units = units.T.reshape(own, -1)
            names.append(next(asking).name)
        second, mean = sums[contraction.input]
        return Part(contraction.node, tuple(names), units, weight.reshape(len(weight), -1), second[0], mean[0])

    def _moments(self, data: Mapping[str, Array], axes: Sequence[Axis]) -> dict[Axis, tuple[Numbers, Numbers]]:
        """Second moments (heads, d, d) and means (heads, d) over samples and positions; a tensor of three axes has one head."""
        session = observing(self._network.proto, [axis.tensor for axis in axes])
        sums: dict[Axis, list[Numbers]] = {}
        for start in range(0, len(next(iter(data.values()))), BATCH):
            batch = {name: array[start : start + BATCH] for name, array in data.items()}
            made = session.run(batch, [axis.tensor for axis in axes])
            for axis in axes:
                value = np.moveaxis(made[axis.tensor].astype(np.float64), axis.index, -1)
                heads = value.shape[1] if value.ndim > 3 else 1
                rows = np.moveaxis(value.reshape(len(value), heads, -1, value.shape[-1]), 1, 0)
                rows = rows.reshape(heads, -1, value.shape[-1])
                own = [rows.transpose(0, 2, 1) @ rows, rows.sum(axis=1), np.array(float(rows.shape[1]))]
                sums[axis] = [a + b for a, b in zip(sums[axis], own, strict=True)] if axis in sums else own
        return {axis: (second / count, total / count) for axis, (second, total, count) in sums.items()}

    def cost(self, left: Mapping[str, float]) -> float:
        """Return what is left of the cost with these shares of the groups."""
        widths = {name: width * left.get(name, 1.0) for name, width in self._full.items()}
        return float(self._cost(widths)) / float(self._cost({}))

    def written(self, maps: Mapping[str, Map]) -> ModelProto:
        """Return the model with these maps in front of the nodes of these labels."""
        model, nodes = ModelProto(), []
        model.CopyFrom(self._network.proto)
        for label, node in zip(self._network.labels, self._network.nodes, strict=True):
            changed = type(node).FromString(node.SerializeToString())
            for op, value in zip(("MatMul", "Add"), maps.get(label, ()), strict=False):
                if value is not None:
                    name = f"{label}/{op}"
                    model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
                    nodes.append(helper.make_node(op, [changed.input[0], name], [f"{name}/made"]))
                    changed.input[0] = f"{name}/made"
            nodes.append(changed)
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        return model


Method = Callable[[Transformer, float], tuple[ModelProto, float]]
"""From a budget, a share of the cost, the model and the share that it keeps."""


def _without(part: Part, gone: np.ndarray, *, means: bool = False) -> Map:
    """Units at zero, or at their mean."""
    mask = np.ones(len(part.mean))
    mask[part.units[gone].ravel()] = 0.0
    return np.diag(mask), (part.mean * (1 - mask) if means else None)


def _squared(part: Part) -> Numbers:
    return np.asarray((part.rows**2).sum(axis=1))


def _wanda(part: Part) -> Numbers:
    return np.asarray(np.abs(part.rows).sum(axis=1) * np.sqrt(np.diagonal(part.second)))


def _by_layer(columns: Callable[[Part], Numbers]) -> Method:
    """The same share of every layer, the units of the least mean score."""

    def prune(model: Transformer, budget: float) -> tuple[ModelProto, float]:
        for step in range(STEPS):
            counts = [min(len(p.units) * step // STEPS, len(p.units) - 1) for p in model.parts]
            left = _shares(model, counts)
            if model.cost(left) <= budget or step == STEPS - 1:
                break
        orders = [np.argsort(columns(p)[p.units].mean(axis=1), kind="stable") for p in model.parts]
        maps = {
            p.label: _without(p, order[:count]) for p, order, count in zip(model.parts, orders, counts, strict=True)
        }
        return model.written(maps), model.cost(left)

    return prune


def _shares(model: Transformer, counts: Sequence[int]) -> dict[str, float]:
    found = zip(model.parts, counts, strict=True)
    return {name: 1 - count / len(part.units) for part, count in found for name in part.groups}


def _flap(model: Transformer, budget: float) -> tuple[ModelProto, float]:
    scores, places = list[float](), list[tuple[int, int]]()
    for place, part in enumerate(model.parts):
        columns = (np.diagonal(part.second) - part.mean**2) * _squared(part)
        units = ((columns - columns.mean()) / columns.std())[part.units].mean(axis=1)
        scores += units.tolist()
        places += [(place, unit) for unit in range(len(part.units))]
    gone: list[list[int]] = [[] for _ in model.parts]
    for index in np.argsort(scores, kind="stable"):
        if model.cost(_shares(model, [len(units) for units in gone])) <= budget:
            break
        place, unit = places[index]
        if len(gone[place]) < len(model.parts[place].units) - 1:
            gone[place].append(unit)
    maps = {p.label: _without(p, np.array(units, int), means=True) for p, units in zip(model.parts, gone, strict=True)}
    return model.written(maps), model.cost(_shares(model, [len(units) for units in gone]))


def _solved(gram: Numbers, cross: Numbers) -> Numbers:
    ridge = RIDGE * np.trace(gram) / len(gram)
    return np.asarray(np.linalg.solve(gram + ridge * np.eye(len(gram)), cross))


def regressed(part: Part, count: int) -> Map:
    """What goes, so many units of the least energy, as an affine function of what stays."""
    order = np.argsort(np.diagonal(part.second), kind="stable")
    gone, kept = order[:count], order[count:]
    covariance = part.second - np.outer(part.mean, part.mean)
    matrix, constant = np.zeros_like(covariance), np.zeros(len(order))
    matrix[kept, kept] = 1.0
    if count:
        slopes = _solved(covariance[np.ix_(kept, kept)], covariance[np.ix_(kept, gone)])
        matrix[np.ix_(kept, gone)] = slopes
        constant[gone] = part.mean[gone] - part.mean[kept] @ slopes
    return matrix, constant


def compensated(item: Logits, count: int) -> Map:
    """Q times what makes q k of the numbers that stay nearest to that of all; so many go of each head."""
    matrices = np.zeros_like(item.asked)
    for head, (asked, keys) in enumerate(zip(item.asked, item.keys, strict=True)):
        order = np.argsort(np.diagonal(asked) * np.diagonal(keys), kind="stable")
        gone, kept = order[:count], order[count:]
        matrix = np.eye(len(kept))
        if count:
            left = _solved(asked[np.ix_(kept, kept)], asked[np.ix_(kept, gone)])
            right = _solved(keys[np.ix_(kept, kept)], keys[np.ix_(kept, gone)])
            matrix += left @ right.T
        matrices[head][np.ix_(kept, kept)] = matrix
    return matrices, None


def _corp(model: Transformer, budget: float) -> tuple[ModelProto, float]:
    units = [part for part in model.parts if part.units.shape[1] == 1]
    for step in range(STEPS):
        counts = [round(len(part.units) * step / STEPS) for part in units]
        numbers = [round(item.asked.shape[-1] * step / STEPS) for item in model.logits]
        left = {part.groups[0]: 1 - n / len(part.units) for part, n in zip(units, counts, strict=True)}
        left |= {item.group: 1 - n / item.asked.shape[-1] for item, n in zip(model.logits, numbers, strict=True)}
        if model.cost(left) <= budget or step == STEPS - 1:
            break
    maps = {part.label: regressed(part, n) for part, n in zip(units, counts, strict=True)}
    maps |= {item.label: compensated(item, n) for item, n in zip(model.logits, numbers, strict=True)}
    return model.written(maps), model.cost(left)


METHODS: Mapping[str, Method] = {
    "norm of the weights, heads and units": _by_layer(_squared),
    "Wanda-sp": _by_layer(_wanda),
    "FLAP": _flap,
    "CORP": _corp,
}
"""By the name in the table."""
