"""A node as a rule sees it: its attributes, the shapes around it, and a vocabulary to say what coincides.

Whatever axis a rule does not mention is pinned when the rule is done: what a rule leaves out is safe.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from onnx import NodeProto

from onnx_subprune._typing import Array, Int64, Mask
from onnx_subprune.errors import typed_fields
from onnx_subprune.graph.channels import Axis, Contraction, Product, Use
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.observation import Observation
from onnx_subprune.graph.operators import attribute
from onnx_subprune.graph.rules.coordinates import Labels


class UnknownError(Exception):
    """A rule cannot tell what coincides at this node; the text is the reason that pins it."""


@dataclass(frozen=True, slots=True)
class Site:
    """One node with what is known around it."""

    network: Network
    observation: Observation
    index: int

    @property
    def node(self) -> NodeProto:
        """The node itself."""
        return self.network.nodes[self.index]

    @property
    def label(self) -> str:
        """The node's unique name."""
        return self.network.labels[self.index]

    def has(self, slot: int) -> bool:
        """True if input `slot` is given."""
        return slot < len(self.node.input) and bool(self.node.input[slot])

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        value = attribute(self.node, name, default)
        assert isinstance(value, int)
        return value

    def integers(self, name: str) -> tuple[int, ...] | None:
        """Return a list attribute, None where it is absent."""
        value = attribute(self.node, name)
        return tuple(int(v) for v in value) if isinstance(value, (list, tuple)) else None

    def text(self, name: str, default: str) -> str:
        """Return a string attribute."""
        value = attribute(self.node, name)
        return value.decode() if isinstance(value, bytes) else default

    def constant(self, slot: int) -> bool:
        """True if input `slot` depends on no input of the model."""
        return self.has(slot) and self.node.input[slot] in self.network.constants

    def value(self, slot: int) -> Array | None:
        """Return input `slot` if it is constant, or a small integer tensor (its value in the first run)."""
        if not self.has(slot):
            return None
        name = self.node.input[slot]
        if self.constant(slot):
            return self.network.array(name)
        return self.observation.values.get(name)

    def varies(self, slot: int) -> Mask:
        """Mask of the elements of input `slot` that differ from run to run."""
        if self.constant(slot):
            return np.zeros(self.network.array(self.node.input[slot]).shape, bool)
        return self.observation.varying.get(self.node.input[slot], np.ones((), bool))

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor; UnknownError if it was not observed."""
        if name in self.network.initializers:
            return tuple(self.network.initializers[name].dims)
        if name in self.observation.shapes:
            return self.observation.shapes[name]
        if name in self.network.constants:
            return self.network.array(name).shape
        raise UnknownError(f"the shape of {name!r} is not known")

    def shape(self, slot: int) -> tuple[int, ...]:
        """Return the shape of input `slot`."""
        return self.shape_of(self.node.input[slot])

    def out_shape(self, which: int = 0) -> tuple[int, ...]:
        """Return the shape of output `which`."""
        return self.shape_of(self.node.output[which])

    def other_shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Return the shapes of input 0 and output 0 in the second run, if there was one."""
        before, after = (self.observation.other_shapes.get(item[0]) for item in (self.node.input, self.node.output))
        return None if before is None or after is None else (before, after)

    def in_axis(self, slot: int, index: int) -> Axis:
        """Return the axis of input `slot` (negative `index` from the end)."""
        name = self.node.input[slot]
        return Axis(name, index % max(1, len(self.shape(slot))), Use(self.label, slot) if self.constant(slot) else None)

    def out_axis(self, index: int, which: int = 0) -> Axis:
        """Return the axis of output `which`."""
        return Axis(self.node.output[which], index % max(1, len(self.out_shape(which))))


@dataclass(frozen=True, slots=True)
class Findings:
    """What the rules declare beside ties and pins.

    balances: (node, coordinates, cell of each): equally many must stay of each cell.
    choices: axes that others were made to follow, where they could have followed another.
    preferred: those that could have followed one only that a product of activations sums over. products: of two activations, where these are asked for.
    """

    contractions: list[Contraction] = field(default_factory=list)
    balances: list[tuple[str, Int64, Int64]] = field(default_factory=list)
    choices: list[Axis] = field(default_factory=list)
    preferred: list[Axis] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Scope(Site):
    """A site that a `tie` rule writes to."""

    labels: Labels
    findings: Findings
    hopeless: frozenset[Axis] | None
    beyond: frozenset[Axis] | None = None
    mentioned: set[tuple[bool, int, int]] = field(default_factory=set)

    def input(self, slot: int, index: int, size: int | None = None) -> Int64:
        """Return the coordinates of an axis of input `slot` (`size` overrides its length: grouped weights)."""
        axis = self.in_axis(slot, index)
        self.mentioned.add((True, slot, axis.index))
        return self.labels.axis(axis, self.shape(slot)[axis.index] if size is None else size)

    def output(self, index: int, which: int = 0) -> Int64:
        """Return the coordinates of an axis of output `which`."""
        axis = self.out_axis(index, which)
        self.mentioned.add((False, which, axis.index))
        return self.labels.axis(axis, self.out_shape(which)[axis.index])

    def tie(self, a: Int64, b: Int64) -> None:
        """Coordinates `a` and `b` coincide elementwise."""
        self.labels.tie(a, b)

    def pin(self, ids: Int64, reason: str) -> None:
        """Coordinates `ids` stay."""
        self.labels.pin(ids, reason)

    def varying_in(self, slot: int, index: int) -> bool:
        """True if the size of that input axis varies from run to run."""
        axis = self.in_axis(slot, index)
        return axis.index in self.observation.varying_axes.get(axis.tensor, frozenset())

    def varying_out(self, index: int, which: int = 0) -> bool:
        """True if the size of that output axis varies from run to run."""
        axis = self.out_axis(index, which)
        return axis.index in self.observation.varying_axes.get(axis.tensor, frozenset())

    @property
    def exploring(self) -> bool:
        """True in the first pass over the graph, which only finds out what is pinned."""
        return self.hopeless is None

    def free(self, axis: Axis) -> bool:
        """False if a pass over the graph found a coordinate of `axis` pinned."""
        return self.hopeless is None or axis not in self.hopeless

    def attainable(self, axis: Axis) -> bool:
        """True if `axis` is pinned by nothing but products of activations, and these may lose what they sum over."""
        return self.beyond is not None and axis not in self.beyond

    def choose(self, axis: Axis) -> None:
        """Another axis follows `axis`, and could have followed another."""
        self.findings.choices.append(axis)

    def prefer(self, axis: Axis) -> None:
        """Another axis follows `axis`, and could have followed one that only products of activations sum over."""
        self.findings.preferred.append(axis)

    def balance(self, ids: Int64, cells: Int64) -> None:
        """Equally many of `ids` must stay in each cell."""
        self.findings.balances.append((self.label, ids, cells))

    def multiply(self, product: Product) -> None:
        """The node multiplies two activations."""
        self.findings.products.append(product)

    def contract(self, contraction: Contraction) -> None:
        """The node is a contraction with constant weights."""
        self.findings.contractions.append(contraction)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """What changes at a node when its channels go.

    attributes: new attributes, numbers or lists of integers; None removes one.
    constants: new constants for input slots, with a mask of the elements that stay computed at run time (or None).
    gather: instead of the node, gather these positions of tensor `source` along an axis. emptied: input slots that nothing is given to any more.
    """

    attributes: Mapping[str, int | float | list[int] | None] = field(default_factory=dict)
    constants: Mapping[int, tuple[Array, Mask | None]] = field(default_factory=dict)
    gather: tuple[str, int, Int64] | None = None
    emptied: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Resizing(Site):
    """A site that a `resize` rule reads: which positions of each axis stay."""

    kept: Callable[[Axis], Int64 | None]

    def kept_in(self, slot: int, index: int) -> Int64 | None:
        """Return the kept positions of an axis of input `slot`, None if all stay."""
        return self.kept(self.in_axis(slot, index))

    def kept_out(self, index: int, which: int = 0) -> Int64 | None:
        """Return the kept positions of an axis of output `which`, None if all stay."""
        return self.kept(self.out_axis(index, which))

    def out_size(self, index: int, which: int = 0) -> int:
        """Return the size of an output axis after pruning."""
        kept = self.kept_out(index, which)
        return self.out_shape(which)[index] if kept is None else len(kept)


@typed_fields
@dataclass(frozen=True, slots=True)
class Rule:
    """What is known of an operator.

    tie: says which coordinates coincide. resize: how a node that spells sizes out changes when they go; spelled: its input slots that hold these.
    """

    tie: Callable[[Scope], None]
    resize: Callable[[Resizing], Patch] | None = None
    spelled: tuple[int, ...] = ()
