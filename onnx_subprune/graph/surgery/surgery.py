"""Model + supports + weights -> smaller model. The model that comes in is never changed.

Every constant is sliced as its uses need it, and stays one where they agree. Nodes that spell sizes out are rewritten by the `resize` of their
rule. What no dropped channel touches leaves exactly as it came, names, metadata and side-file references included.
"""

import itertools
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from onnx_subprune._typing import Array, Int64
from onnx_subprune.graph.channels import Axis, ChannelGraph, Use
from onnx_subprune.graph.names import fresh
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.observation import Observation
from onnx_subprune.graph.operators import biased, key_of, set_input
from onnx_subprune.graph.order import captured, live
from onnx_subprune.graph.rules import RULES
from onnx_subprune.graph.rules.vocabulary import Patch, Resizing, Rule
from onnx_subprune.graph.statistics import statistics_of
from onnx_subprune.graph.surgery.absorbing import Absorbing
from onnx_subprune.graph.surgery.assembly import assemble
from onnx_subprune.graph.surgery.closing import Closing
from onnx_subprune.graph.surgery.constants import Constants
from onnx_subprune.graph.surgery.emptied import Sums, added_by
from onnx_subprune.graph.surgery.pieces import joined_parts
from onnx_subprune.graph.surgery.slicing import kept_positions
from onnx_subprune.graph.tracing.branches import Branch, branch_of, leaves, unread
from onnx_subprune.graph.tracing.sizes import SourceArray, size_sources


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """What becomes of a model.

    supports: kept channels of each group; a group that is absent keeps all.
    weights: new values of constants as a use sees them, in their unpruned shape. A use of a slot that the node leaves empty adds
    a constant there (a bias).
    """

    supports: Mapping[str, Sequence[int]] = field(default_factory=dict)
    weights: Mapping[Use, Array] = field(default_factory=dict)


def apply(network: Network, graph: ChannelGraph, plan: Plan, *, rules: Mapping[str, Rule] = RULES) -> ModelProto:
    """Return the model that `plan` describes. Shapes of the model's inputs and outputs do not change."""
    kept = kept_positions(graph, plan.supports)
    statistics = statistics_of(network, kept)
    plan = Plan(supports=plan.supports, weights=ChainMap(statistics, plan.weights)) if statistics else plan  # type: ignore[arg-type]
    return _Surgery(network, graph, plan, kept, rules).model()


class _Surgery:
    """One operation: collects new nodes and constants, then assembles the model."""

    def __init__(
        self,
        network: Network,
        graph: ChannelGraph,
        plan: Plan,
        kept: Mapping[Axis, Int64],
        rules: Mapping[str, Rule],
    ) -> None:
        self._network, self._kept, self._rules = network, kept, rules
        self._observation: Observation = graph.observation
        self._sources: Mapping[str, SourceArray] = size_sources(network, graph.observation, rules)
        idle = (item for item in graph.contractions if item.rows in kept and not len(kept[item.rows]))
        found = (branch_of(network, graph.observation, item) for item in idle)
        self._branches = {branch.sum: branch for branch in found if branch is not None}
        self._new: dict[str, Array] = {}
        self._taken = {name for node in network.nodes for name in (*node.input, *node.output)}
        self._taken.update(network.initializers)
        self._constants = Constants(network, graph, plan.weights, kept, partial(fresh, self._taken))

    def model(self) -> ModelProto:
        sliced = self._constants.sliced()
        renamed = sliced.names
        self._new.update(sliced.values)
        by_node: dict[str, dict[int, str]] = {}
        for use, name in renamed.items():
            by_node.setdefault(use.node, {})[use.slot] = name
        nodes: list[NodeProto] = []
        closing = Closing(self._network, lambda use, name: by_node.get(use.node, {}).get(use.slot, name), self._valued)
        stale = {axis.tensor for axis in self._kept} | {name for name in self._sources if self._holds_sizes(name)}
        stale |= sliced.stale | closing.between
        constant = {self._network.producer[name] for name in sliced.replaced}
        if self._branches:
            constant |= unread(self._network, self._branches.values())
        sums = Sums(self._network, partial(fresh, self._taken))
        for index, node in enumerate(self._network.nodes):
            if index in constant:
                continue
            if (branch := self._branches.get(index)) is not None:
                rank = len(self._observation.shapes[node.output[0]])
                nodes += sums.without(node, branch.slot, self._added(branch, renamed), rank)
            elif (given := closing.closed(node)) is not None:
                nodes += given
            else:
                nodes += self._rewrite(index, node, by_node)
        self._new.update(sums.constants)
        nodes = live(sums.renamed(nodes), [*self._network.outputs, *leaves(self._network)])
        absorbing = Absorbing(nodes, self._known, sums.kept, partial(fresh, self._taken))
        absorbing.take(sums.constants, sums.maps)
        self._new.update(absorbing.made)
        read = {name for node in nodes for name in (*node.input, *captured(node))} | set(self._network.outputs)
        self._new = {name: value for name, value in self._new.items() if name in read}
        return assemble(self._network, nodes, self._new, stale | set(self._new))

    def _added(self, branch: Branch, renamed: Mapping[Use, str]) -> Array:
        """What a branch adds that reads nothing."""
        output = branch.contraction.output
        left = self._kept.get(output)
        channels = self._observation.shapes[output.tensor][output.index] if left is None else len(left)
        return added_by(self._network, branch, channels, lambda place, slot: self._left_of(place, slot, renamed))

    def _left_of(self, place: int, slot: int, renamed: Mapping[Use, str]) -> Array | None:
        """What is left of the constant in a slot of a node; None where it is empty."""
        inputs = self._network.nodes[place].input
        name = renamed.get(Use(self._network.labels[place], slot), inputs[slot] if slot < len(inputs) else "")
        return self._valued(name) if name else None

    def _known(self, name: str) -> Array | None:
        """A constant of the new model; None where it is computed."""
        return self._valued(name) if name in self._new or name in self._network.initializers else None

    def _valued(self, name: str) -> Array:
        """A constant of the new model."""
        return self._new[name] if name in self._new else self._network.array(name)

    def _rewrite(self, index: int, node: NodeProto, renamed: Mapping[str, Mapping[int, str]]) -> list[NodeProto]:
        label = self._network.labels[index]
        rule = self._rules.get(key_of(node))
        patch = Patch()
        if rule is not None and rule.resize is not None and self._touches(node):
            patch = rule.resize(Resizing(self._network, self._observation, index, self._kept.get))
        names = renamed.get(label, {})
        if not names and patch == Patch():
            return [node]
        new = NodeProto()
        new.CopyFrom(node)
        if patch.gather is not None:
            return [self._gather(node, patch.gather)]
        for slot, name in names.items():
            set_input(new, slot, name)
        before: list[NodeProto] = []
        for slot, (value, mask) in patch.constants.items():
            name, made = self._constant(
                f"{node.output[0]}_{slot}", value, mask, node.input[slot] if slot < len(node.input) else ""
            )
            before += made
            set_input(new, slot, name)
        for slot in patch.emptied:
            new.input[slot] = ""
        for name, setting in patch.attributes.items():
            kept = [item for item in new.attribute if item.name != name]
            del new.attribute[:]
            new.attribute.extend(kept)
            if setting is not None:
                new.attribute.append(onnx.helper.make_attribute(name, setting))
        return [*before, *biased(new)]

    def _touches(self, node: NodeProto) -> bool:
        """True if an axis of an input or output of `node` loses positions, or a size that it reads does."""
        names = {name for name in (*node.input, *node.output) if name}
        if any(axis.tensor in names for axis in self._kept):
            return True
        return any(self._holds_sizes(name) for name in names)

    def _holds_sizes(self, name: str) -> bool:
        """True if a tensor holds the size of an axis that loses positions."""
        return name in self._sources and any(
            axis in self._kept for axes in self._sources[name].ravel() for axis in axes
        )

    def _gather(self, node: NodeProto, gather: tuple[str, int, Int64]) -> NodeProto:
        source, axis, positions = gather
        name = fresh(self._taken, f"{node.output[0]}_positions")
        self._new[name] = positions.astype(np.int64)
        return onnx.helper.make_node("Gather", [source, name], list(node.output), name=node.name, axis=axis)

    def _constant(
        self, stem: str, value: Array, mask: NDArray[np.bool_] | None, computed: str
    ) -> tuple[str, list[NodeProto]]:
        """A new constant; where some elements stay computed at run time, those are taken from what the computed tensor is put together of."""
        if mask is None or not np.any(mask):
            name = fresh(self._taken, f"{stem}_pruned")
            self._new[name] = value
            return name, []
        flags = np.broadcast_to(mask, value.shape)
        parts = joined_parts(self._network, self._observation.shapes, computed, flags)
        if parts is not None:
            return self._joined(stem, value, parts)
        nodes, pieces = [], []
        edges = [0, *(np.flatnonzero(np.diff(flags)) + 1).tolist(), len(value)]
        for start, end in itertools.pairwise(edges):
            piece = fresh(self._taken, f"{stem}_piece")
            pieces.append(piece)
            if flags[start] and self._network.opset < 10:
                nodes.append(onnx.helper.make_node("Slice", [computed], [piece], axes=[0], starts=[start], ends=[end]))
            elif flags[start]:
                bounds = [fresh(self._taken, f"{stem}_bound") for _ in range(2)]
                self._new[bounds[0]], self._new[bounds[1]] = np.array([start]), np.array([end])
                nodes.append(onnx.helper.make_node("Slice", [computed, *bounds], [piece]))
            else:
                self._new[piece] = value[start:end]
        whole = fresh(self._taken, f"{stem}_pruned")
        return whole, [*nodes, onnx.helper.make_node("Concat", pieces, [whole], axis=0)]

    def _joined(self, stem: str, value: Array, parts: Sequence[tuple[str, int]]) -> tuple[str, list[NodeProto]]:
        """A Concat of these parts, with constants for those without a name."""
        pieces, start, whole = list[str](), 0, fresh(self._taken, f"{stem}_pruned")
        for name, length in parts:
            piece = name or fresh(self._taken, f"{stem}_piece")
            if not name:
                self._new[piece] = value[start : start + length]
            pieces.append(piece)
            start += length
        return whole, [onnx.helper.make_node("Concat", pieces, [whole], axis=0)]
