"""Residual branches that a model can do without: what they add is then a constant."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from onnx_subprune.graph.channels import BY_OPTION, ChannelGraph, Contraction
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.observation import Observation
from onnx_subprune.graph.operators import attribute, key_of

CONTRACTING = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Contractions that a branch may end with."""
ALIKE = ("Dropout", "Identity", "Relu")
"""Operators that make a constant a channel of a constant a channel, whatever the shape is."""
WEIGHED = ("Add", "Div", "Mul", "Sub")
"""Operators that do so with a constant."""
SIZES, LONGEST = ("Shape", "Size"), 64
"""Operators that take the sizes of a tensor, and nodes at most that compute with them."""
LAYOUTS = ("Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Branch:
    """The end of a residual branch: a contraction, what makes something of its output alone, and a sum with another activation.

    places: those nodes, the contraction first. sum, slot: the Add, and where it reads them. behind: how many axes there are behind that of channels.
    """

    contraction: Contraction
    places: tuple[int, ...]
    sum: int
    slot: int
    behind: int


def dispensable(network: Network, graph: ChannelGraph) -> frozenset[str]:
    """Return the names of the groups that may lose all their channels.

    Each of their consumers reads nothing else and is the end of a residual branch, or lies in one, as what weighs channels by their means does.
    The other summand stays: of two branches that meet, one at most is named. No normalisation takes its statistics of them: of none there are none.
    What the user excludes does not go with a block either.
    """
    return frozenset(blocks(network, graph))


@dataclass(frozen=True, slots=True)
class Block:
    """What goes with all channels of a group. ends: of residual branches; unread: the places of the nodes that nobody reads then."""

    ends: tuple[Branch, ...]
    unread: frozenset[int]


def blocks(network: Network, graph: ChannelGraph) -> dict[str, Block]:
    """Return, for each group that may lose all its channels, what goes with them; see `dispensable`."""
    found, met = dict[str, Block](), set[int]()
    kept = {network.position[item.node] for item in graph.pinned if item.reason == BY_OPTION}
    for group in graph.groups:
        ends, inside = list[Branch](), set[int]()
        for consumer in () if graph.normalized(group) else group.consumers:
            weight, rows = consumer.contraction.weight_tensor, consumer.contraction.rows.index
            branch = branch_of(network, graph.observation, consumer.contraction)
            if branch is not None and consumer.positions.size == network.array(weight).shape[rows]:
                ends.append(branch)
            else:
                inside.add(network.position[consumer.node])
        sums = {branch.sum for branch in ends}
        if ends and len(sums) == len(ends) and met.isdisjoint(sums):
            gone = unread(network, ends)
            within = gone.difference(place for branch in ends for place in branch.places)
            if inside <= gone and gone.isdisjoint(sums) and kept.isdisjoint(within):
                found[group.name] = Block(tuple(ends), gone)
                met |= sums
    return found


def unread(network: Network, branches: Collection[Branch]) -> frozenset[int]:
    """Return the places of the nodes that nobody reads any more where these branches read nothing."""
    ends = [network.nodes[branch.places[-1]].output[0] for branch in branches]
    read, _ = network.ancestors([*network.outputs, *leaves(network)], ends)
    return frozenset(range(len(network.nodes))).difference(read)


def leaves(network: Network) -> list[str]:
    """Return what nodes make of which nobody reads anything; that nobody read it before either is no reason to leave it out."""
    last = (node for node in network.nodes if not any(name in network.readers for name in node.output))
    return [name for node in last for name in node.output if name]


def branch_of(network: Network, observation: Observation, contraction: Contraction) -> Branch | None:
    """Return the residual branch that a contraction is the end of; None where it makes no constant a channel if it reads nothing, or that is not added."""
    place = network.position[contraction.node]
    if contraction.op not in CONTRACTING or contraction.groups > 1 or contraction.stacked or contraction.internal:
        return None
    made, axis = contraction.output.tensor, contraction.output.index
    if not _biased(network, observation.shapes, place, axis):
        return None
    places = [place]
    while (reader := _reader(network, made)) is not None:
        place, slot = reader
        node = network.nodes[place]
        other = node.input[1 - slot] if key_of(node) == "Add" else ""
        if other and other not in network.constants:
            shapes = [(item.get(made), item.get(other), item.get(node.output[0])) for item in _runs(observation)]
            alike = all(first is not None and first == second == whole for first, second, whole in shapes)
            return (
                Branch(contraction, tuple(places), place, slot, len(shapes[0][0] or ()) - axis - 1) if alike else None
            )
        after = {_after(network, shapes, place, slot, axis) for shapes in _runs(observation)}
        if len(after) > 1 or None in after:
            return None
        axis = next(item for item in after if item is not None)
        places.append(place)
        made = node.output[0]
    return None


def _reader(network: Network, tensor: str) -> tuple[int, int] | None:
    """The only node that reads a tensor, and where, but for those that take its sizes for that node."""
    readers = network.readers.get(tensor, ())
    values = [(place, slot) for place, slot in readers if slot < 0 or key_of(network.nodes[place]) not in SIZES]
    if len(values) != 1 or values[0][1] < 0 or tensor in network.outputs:
        return None
    waiting, sized = [place for place, _ in readers if place != values[0][0]], set[int]()
    while waiting:
        place = waiting.pop()
        if place not in sized and place != values[0][0]:
            sized.add(place)
            made = network.nodes[place].output
            if any(name in network.outputs for name in made):
                return None
            waiting += [reader for name in made for reader, _ in network.readers.get(name, ())]
            if len(sized) > LONGEST:
                return None
    return values[0]


def _runs(observation: Observation) -> Iterator[Shapes]:
    """Shapes of activations in each run."""
    yield observation.shapes
    if observation.other_shapes:
        yield observation.other_shapes


def _biased(network: Network, shapes: Shapes, place: int, axis: int) -> bool:
    """True if all that a contraction adds to its product is one number a channel."""
    node = network.nodes[place]
    if len(node.input) < 3 or not node.input[2] or key_of(node) == "MatMul":
        return True
    if key_of(node) != "Gemm":
        return node.input[2] in network.constants
    return _one_a_channel(network, node.input[2], shapes.get(node.output[0]), axis)


def _after(network: Network, shapes: Shapes, place: int, slot: int, axis: int) -> int | None:
    """The axis of channels of what a node makes of one number a channel; None where it makes something else."""
    node = network.nodes[place]
    key, before, made = key_of(node), shapes.get(node.input[slot]), shapes.get(node.output[0])
    if before is None or made is None:
        return None
    if slot and key not in WEIGHED:
        return None
    if key in LAYOUTS:
        return _moved(before, made, axis, attribute(node, "perm"), turned=key == "Transpose")
    fits = key in ALIKE or (key == "BatchNormalization" and axis == 1 and len(node.output) == 1)
    if key in WEIGHED and made == before:
        fits = _one_a_channel(network, node.input[1 - slot], made, axis)
    return axis if fits else None


def _moved(before: Sequence[int], made: Sequence[int], axis: int, order: object, *, turned: bool) -> int | None:
    """Where the axis of channels goes; None where it is taken apart, or joined with another."""
    if turned:
        places = order if isinstance(order, list) else [*reversed(range(len(before)))]
        return places.index(axis)
    behind = prod(before[axis + 1 :])
    found = [i for i, size in enumerate(made) if size == before[axis] and prod(made[i + 1 :]) == behind]
    return found[0] if found and before[axis] > 1 else None


def _one_a_channel(network: Network, name: str, shape: Sequence[int] | None, axis: int) -> bool:
    """True if a constant adds to, or multiplies, a tensor of this shape by one number for all, or for each place of `axis`."""
    if shape is None or name not in network.constants:
        return False
    own = network.array(name).shape
    padded = (1,) * (len(shape) - len(own)) + own
    return len(own) <= len(shape) and all(
        size == 1 or (i == axis and size == shape[i]) for i, size in enumerate(padded)
    )
