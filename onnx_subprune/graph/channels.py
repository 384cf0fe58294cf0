"""What `trace` finds in a model: channel groups that can be pruned, and axes that cannot, with the reason.

A *use* is one input slot of one node that reads a constant. Two uses of one initializer are told apart: those of the weight of a contraction
keep the same channels of it, others, such as equal biases that an exporter has merged, may need other ones each, and have a copy then.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnx_subprune._typing import Int64
from onnx_subprune.graph.observation import Observation


@dataclass(frozen=True, slots=True)
class Use:
    """Input `slot` of the node labelled `node`."""

    node: str
    slot: int


@dataclass(frozen=True, slots=True)
class Axis:
    """Axis `index` of an activation `tensor`, or, with `use`, of a constant as that use sees it."""

    tensor: str
    index: int
    use: Use | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slice:
    """Where the channels of a group lie on one axis.

    positions: (width, r) int64, the r positions on `axis` that belong to each channel.
    size: length of the axis in the unpruned model.
    """

    axis: Axis
    positions: Int64
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Contraction:
    """A sum over channels of an input of a node, weighted by a constant: output = input (*) weight + bias.

    The use of the weight identifies it: a node may hold several. new_bias: the empty slot that takes a bias where there is none (None: there is no
    such slot). The input axis of a grouped convolution's weight counts over all groups: position g * (inputs per group) + j.
    """

    node: str
    op: str
    input: Axis
    weight: Use
    weight_tensor: str
    rows: Axis
    """The weight's axis that is contracted with `input`."""
    columns: Axis
    """The weight's axis that becomes the channel axis of `output`."""
    output: Axis
    bias: Use | None
    new_bias: Use | None = None
    groups: int = 1
    whole_groups: bool = False
    """The groups read or make one channel each (depthwise): they go as a whole, and the node carries channels on instead of mixing them."""
    internal: bool = False
    """What it puts out is no tensor of the model (the gates of a recurrent layer): `output` is what the node makes of it, unit by unit."""
    stacked: bool = False
    """The weight has a matrix for each place of the axis before the channels; all read and make the same channels."""
    observed: bool = True
    """False: no tensor of the model shows what it reads, and `input` is the nearest: it is sliced, not refitted."""

    @property
    def recurs(self) -> bool:
        """True if it reads what its own node put out a step before."""
        return self.internal and self.input == self.output


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Consumer:
    """A contraction over the channels of a group.

    positions: (width, r) int64, positions of each channel on the contracted axis of the weight.
    """

    contraction: Contraction
    positions: Int64

    @property
    def node(self) -> str:
        """Label of the contracting node."""
        return self.contraction.node

    @property
    def weight(self) -> Use:
        """The use of the weight, which identifies the contraction."""
        return self.contraction.weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A matrix product of two activations at `node`, which sums over the axes `left` of its first input and `right` of its second (Q and K)."""

    node: str
    left: Axis
    right: Axis


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChannelGroup:
    """Channels that live or die alike: any subset of them may go, each at all of its positions at once.

    producers: labels of the nodes that make the channels.
    slices: every axis on which a channel has positions, activations and constants.
    cells: (width,) int64; a support must keep equally many channels of each cell (all zero: no such constraint).
    product: what sums over the channels where no contraction does; there are no consumers then. silencers: the constants that make one side of it:
    with zeros in them a channel adds nothing to the product, which is the same as if it were not there.
    """

    name: str
    width: int
    slices: tuple[Slice, ...]
    producers: tuple[str, ...]
    consumers: tuple[Consumer, ...]
    cells: Int64
    product: Product | None = None
    silencers: tuple[Slice, ...] = ()

    @property
    def readers(self) -> tuple[str, ...]:
        """Labels of the nodes that sum over the channels."""
        own = () if self.product is None else (self.product.node,)
        return (*(consumer.node for consumer in self.consumers), *own)

    @property
    def step(self) -> int:
        """The width changes in multiples of this: one channel from each cell."""
        return int(self.cells.max()) + 1


BY_OPTION = "it is excluded by an option"
"""Why a layer that the user names keeps its channels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """Channels of a contraction's output that stay, and why."""

    node: str
    axis: Axis
    width: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChannelGraph:
    """All groups of a model, all contractions in topological order, and what is pinned."""

    groups: tuple[ChannelGroup, ...]
    pinned: tuple[Pinned, ...]
    contractions: tuple[Contraction, ...]
    observation: Observation = field(repr=False)
    """Shapes of the activations and small values, as two runs of the model showed them."""
    shared: Mapping[Use, tuple[Contraction, ...]] = field(default_factory=dict, repr=False)
    """By weight, the contractions that have the same one, all that do: they keep the same channels, and are refitted as one."""
    fixed: frozenset[Use] = frozenset()
    """Weights that are read in yet another manner, turned or by something else: they are sliced, not refitted."""
    counted: frozenset[Use] = frozenset()
    """Constants that say which channels count in the statistics of a normalisation; see `normalization`."""

    def together(self, contraction: Contraction) -> tuple[Contraction, ...]:
        """Return the contractions that have the weight of this one, in topological order; it may be alone."""
        return self.shared.get(contraction.weight, (contraction,))

    def alone(self, weight: Use) -> bool:
        """True if nothing else has this weight, in whatever manner."""
        return weight not in self.shared and weight not in self.fixed

    def normalized(self, group: ChannelGroup) -> bool:
        """True if channels of a group count in the statistics of a normalisation."""
        return any(part.axis.use in self.counted for part in group.slices)

    def group(self, name: str) -> ChannelGroup:
        """Return the group called `name`; KeyError if there is none."""
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(name)
