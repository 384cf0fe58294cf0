"""Chains from a contraction to another that alone reads what it makes, which an error can be sent back along.

A chain leads through elementwise functions of one value, pooling without overlap, changes of layout and depthwise convolutions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from onnx_subprune.graph.channels import Contraction, Use
from onnx_subprune.graph.network import Network, only_reader
from onnx_subprune.graph.operators import attribute, key_of

SMOOTH = frozenset(
    [
        "Celu",
        "Clip",
        "Elu",
        "Erf",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "Mish",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Softsign",
        "Swish",
        "Tanh",
        "ThresholdedRelu",
    ]
)
"""Activations, and what they are spelled out in."""
JOINING = frozenset(("Add", "Sub", "Mul", "Div", "Pow"))
LAYOUT = frozenset(("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Dropout"))
POOLING = frozenset(("MaxPool", "AveragePool", "GlobalAveragePool"))
LONGEST = 12
"""An activation that is spelled out takes at most so many operators."""


@dataclass(frozen=True, slots=True)
class Link:
    """Nodes that lead from tensor `start` to tensor `end`: an elementwise function, or one node of another kind.

    beside: other tensors that it reads and that are no constants, such as the computed target of a Reshape.
    """

    nodes: tuple[int, ...]
    start: str
    end: str
    elementwise: bool = False
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chain:
    """The chain from a producer to its only reader."""

    producer: Contraction
    reader: Contraction
    links: tuple[Link, ...]

    @property
    def beside(self) -> tuple[str, ...]:
        """Tensors that the links read beside what the producer makes, and constants."""
        return tuple(dict.fromkeys(name for link in self.links for name in link.beside))


def chains(network: Network, contractions: Sequence[Contraction]) -> dict[Use, Chain]:
    """Return, by its weight, the chain to each contraction that is the only reader of another; these are in topological order."""
    reading: dict[str, list[Contraction]] = {}
    for item in contractions:
        reading.setdefault(item.input.tensor, []).append(item)
    readers = {tensor: items[0] for tensor, items in reading.items() if len(items) == 1}
    found = {}
    for producer in contractions:
        chain = _followed(network, producer, readers)
        if chain is not None:
            found[chain.reader.weight] = chain
    return found


def separate(network: Network, chain: Chain) -> bool:
    """True if every channel goes its own way, in its own place, and no constant but those of a BatchNormalization tells them apart."""
    if chain.reader.groups > 1:
        return False
    for index in (index for link in chain.links for index in link.nodes):
        node = network.nodes[index]
        if key_of(node) == "BatchNormalization" and chain.producer.output.index == 1:
            continue
        known = [name for name in node.input if name in network.constants]
        if key_of(node) not in SMOOTH | JOINING | POOLING or any(network.array(name).size > 1 for name in known):
            return False
    return True


def whole_numbers(node: NodeProto, name: str, default: Sequence[int] = ()) -> tuple[int, ...]:
    """Return an attribute that holds integers."""
    value = attribute(node, name, default)
    assert isinstance(value, Sequence)
    return tuple(int(item) for item in value)


def _followed(network: Network, producer: Contraction, readers: dict[str, Contraction]) -> Chain | None:
    if network.array(producer.weight_tensor).dtype != np.float32:
        return None
    start, links = producer.output.tensor, list[Link]()
    while (reader := readers.get(start)) is None or reader.whole_groups:
        link = _elementwise(network, start) or _single(network, start)
        if link is None or network.opset < max(_backwards_since(network, index) for index in link.nodes):
            return None
        links.append(link)
        start = link.end
    last = only_reader(network, start)
    if last is None or network.labels[last[0]] != reader.node or not _transposable(network, reader):
        return None
    if network.opset < _backwards_since(network, last[0]):
        return None
    return Chain(producer=producer, reader=reader, links=tuple(links))


def _backwards_since(network: Network, index: int) -> int:
    """The opset from which on there are operators for the way back through a node: Expand, MaxUnpool, and Slices to sizes that are computed."""
    node = network.nodes[index]
    if key_of(node) in ("Conv", "AveragePool"):
        return 10 if any(stride > 1 for stride in whole_numbers(node, "strides")) else 1
    return {"GlobalAveragePool": 8, "MaxPool": 9}.get(key_of(node), 1)


def _single(network: Network, start: str) -> Link | None:
    """A link of one node that is not elementwise."""
    reader = only_reader(network, start)
    if reader is None or reader[1] != 0:
        return None
    node = network.nodes[reader[0]]
    if any(network.readers.get(name) or name in network.outputs for name in node.output[1:] if name):
        return None
    beside = tuple(name for name in network.reads[reader[0]][1:] if name not in network.constants)
    fits = (
        (key_of(node) in LAYOUT and not (beside and key_of(node) == "Dropout"))
        or (key_of(node) in POOLING and _apart(node))
        or (key_of(node) == "Conv" and not beside and _depthwise(network, node))
    )
    return Link((reader[0],), start, node.output[0], beside=beside) if fits else None


def _elementwise(network: Network, start: str) -> Link | None:
    """The elementwise function that begins at `start`: nodes that read nothing but each other, `start` and constants."""
    inside, made = list[int](), [start]
    while len(inside) < LONGEST and not any(name in network.outputs for name in made):
        reading = sorted({index for name in made for index, _ in network.readers.get(name, ())} - set(inside))
        if not reading or not _pointwise(network, network.nodes[reading[0]], made):
            return None
        inside.append(reading[0])
        made.append(network.nodes[reading[0]].output[0])
        unread = [name for name in made if any(index not in inside for index, _ in network.readers.get(name, ()))]
        if unread == made[-1:]:
            return Link(tuple(inside), start, made[-1], elementwise=True)
    return None


def _pointwise(network: Network, node: NodeProto, made: Sequence[str]) -> bool:
    constant = all(name in network.constants for name in node.input if name and name not in made)
    if key_of(node) == "BatchNormalization":
        return constant and node.input[0] in made and len([name for name in node.output if name]) == 1
    return constant and key_of(node) in SMOOTH | JOINING


def _apart(node: NodeProto) -> bool:
    """True for pooling windows that do not overlap, and are not padded."""
    if key_of(node) == "GlobalAveragePool":
        return True
    kernel = whole_numbers(node, "kernel_shape")
    strides = whole_numbers(node, "strides", (1,) * len(kernel))
    padded = any(whole_numbers(node, "pads")) or attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
    special = any(attribute(node, name, 0) for name in ("ceil_mode", "storage_order"))
    dilated = any(size != 1 for size in whole_numbers(node, "dilations"))
    if padded or special or dilated:
        return False
    return kernel == strides or (
        key_of(node) == "MaxPool" and all(size <= stride for size, stride in zip(kernel, strides, strict=True))
    )


def _depthwise(network: Network, node: NodeProto) -> bool:
    if node.input[1] not in network.constants or attribute(node, "auto_pad", b"NOTSET") != b"NOTSET":
        return False
    shape = network.array(node.input[1]).shape
    return bool(shape[1] == 1 and attribute(node, "group", 1) == shape[0])


def _transposable(network: Network, reader: Contraction) -> bool:
    node = network.node(reader.node)
    if network.array(reader.weight_tensor).dtype != np.float32 or reader.weight.slot != 1:
        return False
    if key_of(node) == "Conv":
        return attribute(node, "auto_pad", b"NOTSET") == b"NOTSET"
    return key_of(node) == "MatMul" or (key_of(node) == "Gemm" and not attribute(node, "transA", 0))
