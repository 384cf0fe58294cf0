"""The layers of a model: what they cost, and whether they can get smaller or why not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx import NodeProto

from onnx_subprune.graph.channels import ChannelGraph
from onnx_subprune.graph.costs.count import COUNTED, all_shapes, bodies, macs_of, parameters_inside, stored
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import key_of
from onnx_subprune.graph.quantized import quantizes
from onnx_subprune.graph.rules import RULES
from onnx_subprune.graph.sharing import BODY, readers_of_constants
from onnx_subprune.graph.tracing.reasons import MIXERS, chosen_by


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCost:
    """A node with parameters or multiply-accumulates.

    params: those of its constants that no node before it has. macs: of one sample. reason: why it stays; None if it can get smaller.
    matrix: it has weights, and not just biases, scales or single numbers.
    """

    node: str
    op: str
    params: int
    macs: float
    reason: str | None
    matrix: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """All layers of a model, in topological order; params and macs: of the whole model."""

    items: tuple[LayerCost, ...]
    params: int
    macs: float

    @property
    def staying(self) -> tuple[LayerCost, ...]:
        """The layers with weights that stay."""
        return tuple(item for item in self.items if item.reason is not None and item.matrix)

    @property
    def smaller(self) -> tuple[float, float]:
        """The shares of parameters and multiply-accumulates that lie in layers that can get smaller."""
        free = [item for item in self.items if item.reason is None]
        return (
            sum(item.params for item in free) / max(self.params, 1),
            sum(item.macs for item in free) / max(self.macs, 1e-12),
        )


def layers(network: Network, graph: ChannelGraph) -> Layers:
    """Return the layers of `network`, of which `graph` says what can be pruned."""
    shapes, owned, smaller = all_shapes(network, graph.observation), _owned(network), _smaller(network, graph)
    pinned = {item.node: item.reason for item in reversed(graph.pinned)}
    items = []
    for index, (label, node) in enumerate(zip(network.labels, network.nodes, strict=True)):
        inside = sum(parameters_inside(node).values())
        macs = macs_of(network, index, shapes, graph.observation)
        mine = owned.get(label, ())
        if mine or inside or macs:
            cost = LayerCost(
                node=label,
                op=key_of(node),
                params=sum(size for _, size in mine) + inside,
                macs=macs,
                reason=None if label in smaller else pinned.get(label) or _why(network, index),
                matrix=bool(inside) or any(matrix for matrix, _ in mine) or _multiplies(network, index),
            )
            items.append(cost)
    params, total = sum(item.params for item in items), sum(item.macs for item in items)
    return Layers(items=tuple(items), params=params, macs=total)


def _multiplies(network: Network, index: int) -> bool:
    """True if a node multiplies by a constant, which may be that of another one, too, or quantized."""
    node = network.nodes[index]
    return key_of(node) in COUNTED and (not network.constants.isdisjoint(node.input) or _dequantized(network, node))


def _dequantized(network: Network, node: NodeProto) -> bool:
    """True if a weight of a node is dequantized from what depends on no input of the model."""
    made = [
        name for name in node.input[1:] if name in network.producer and quantizes(network.nodes[network.producer[name]])
    ]
    inputs = {value.name for value in network.inputs}
    return any(inputs.isdisjoint(network.ancestors([name], ())[1]) for name in made)


def _why(network: Network, index: int) -> str:
    """Why a node that makes no channels itself stays as it is."""
    node = network.nodes[index]
    key = key_of(node)
    if key == "If":
        return f"its bodies are not looked into{chosen_by(network, node)}"
    if any(True for _ in bodies(node)):
        return "its body is not looked into"
    if quantizes(node) or _dequantized(network, node):
        return "its weights are quantized: prune the float model first, then quantize it"
    if key not in RULES:
        return f"{key} is an operator without a rule"
    if key == "Einsum" and not network.constants.isdisjoint(node.input):
        return "its indices are not those of a product with a constant matrix"
    return MIXERS.get(key, "the channels around it stay").removeprefix("which ")


def _owned(network: Network) -> Mapping[str, Sequence[tuple[bool, int]]]:
    """By node, the stored constants that it is the first to read: whether each is a matrix, and how many numbers it has.

    What nodes make of constants alone, such as weights that are standardized, is read by the first node that makes something else.
    """
    found: dict[str, list[tuple[bool, int]]] = {}
    held, place = stored(network), network.position
    for tensor, readers in readers_of_constants(network).items():
        if tensor in held:
            labels = [use.node for use in readers.uses]
            labels = labels or [name for item in readers.others if (name := item.removeprefix(BODY)) in place]
            shape = network.initializers[tensor].dims if tensor in network.initializers else network.array(tensor).shape
            if labels:
                first = min((_first(network, place[label]) for label in labels), key=lambda label: place[label])
                found.setdefault(first, []).append((sum(size > 1 for size in shape) > 1, held[tensor]))
    return found


def _first(network: Network, index: int) -> str:
    """The first node from `index` on that reads what follows from the constants there, and makes no constant of it; that one itself, if there is none."""
    found, waiting = set[int](), [index]
    passed = set(waiting)
    while waiting:
        at = waiting.pop()
        made = [name for name in network.nodes[at].output if name]
        if not network.constants.issuperset(made):
            found.add(at)
            continue
        behind = {reader for name in made for reader, _ in network.readers.get(name, ())} - passed
        passed |= behind
        waiting.extend(behind)
    return network.labels[min(found, default=index)]


def _smaller(network: Network, graph: ChannelGraph) -> frozenset[str]:
    """Nodes of which a constant loses positions, or, if they have multiply-accumulates, an activation."""
    axes = {part.axis for group in graph.groups for part in group.slices}
    cut = {axis.use.node for axis in axes if axis.use is not None}
    tensors = {axis.tensor for axis in axes if axis.use is None}
    for label, node in zip(network.labels, network.nodes, strict=True):
        if key_of(node) in COUNTED and not tensors.isdisjoint((*node.input, *node.output)):
            cut.add(label)
    return frozenset(cut)
