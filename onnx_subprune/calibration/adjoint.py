"""Back from what a layer puts out wrong to what the layer before it should have made: the transposed derivative of the way between.

The way leads from the output of one contraction, the producer, to the output of another, its only reader, through elementwise
operators, pooling without overlap, changes of layout and depthwise convolutions. `Adjoint` is a small model of its own: it computes

    gradient = J' residual,    J = the derivative of the reader's output with respect to the producer's output

Elementwise operators are differentiated by central differences of themselves, so that any activation will do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_subprune.calibration.kernel import Kernel, Kind
from onnx_subprune.calibration.targets import only_reader
from onnx_subprune.graph.channels import Contraction, Use
from onnx_subprune.graph.model import Network, attribute

Array = NDArray[np.generic]

SMOOTH = frozenset(
    "Celu Clip Elu Erf Gelu HardSigmoid HardSwish Identity LeakyRelu Mish Relu Selu Sigmoid Softplus Softsign Swish Tanh "
    "ThresholdedRelu".split()
)
JOINING = frozenset(("Add", "Sub", "Mul", "Div"))
LAYOUT = frozenset(("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Dropout"))
LONGEST = 12
"""An activation that is spelled out in operators takes at most so many."""
RELATIVE, ABSOLUTE = 2.0**-9, 2.0**-12
"""Half the step of the differences, as a share of the value, and at least."""
OUTPUT, RESIDUAL, GRADIENT = "producer output", "reader residual", "gradient"


@dataclass(frozen=True, slots=True)
class Link:
    """Nodes that lead from tensor `start` to tensor `end`; one of them unless they are an elementwise function."""

    nodes: tuple[int, ...]
    start: str
    end: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Way:
    """The way from a producer to its only reader."""

    producer: Contraction
    reader: Contraction
    links: tuple[Link, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Adjoint:
    """See the module. output: name of the producer's output. model: reads that and the residual, serialized."""

    output: str
    model: bytes


def way_between(network: Network, producer: Contraction, reader: Contraction) -> Way | None:
    """Return the way from `producer` to `reader`; None if there is none that can be followed back, or others read along it."""
    start, links = producer.output.tensor, list[Link]()
    weights = [network.array(item.weight_tensor).dtype for item in (producer, reader)]
    if any(dtype != np.float32 for dtype in weights) or not _transposable(network, reader):
        return None
    while start != reader.input.tensor:
        link = _link(network, start)
        if link is None:
            return None
        links.append(link)
        start = link.end
    last = only_reader(network, start)
    if last is None or network.labels[last[0]] != reader.node:
        return None
    return Way(producer=producer, reader=reader, links=tuple(links))


def channels_of(network: Network, contraction: Contraction) -> int:
    """Return how many channels a contraction puts out."""
    size = int(network.array(contraction.weight_tensor).shape[contraction.columns.index])
    return size * contraction.groups if contraction.op == "ConvTranspose" else size


def _link(network: Network, start: str) -> Link | None:
    found = _elementwise(network, start)
    if found is not None:
        return found
    reader = only_reader(network, start)
    if reader is None or reader[1] != 0:
        return None
    index = reader[0]
    node = network.nodes[index]
    if any(network.readers.get(name) for name in node.output[1:] if name):
        return None
    ways = {"MaxPool": _apart, "AveragePool": _apart, "Conv": _depthwise}
    if node.op_type in (*LAYOUT, "GlobalAveragePool") or (node.op_type in ways and ways[node.op_type](network, node)):
        return Link((index,), start, node.output[0])
    return None


def _elementwise(network: Network, start: str) -> Link | None:
    """The elementwise function that begins at `start`: nodes that read nothing but each other, `start` and constants."""
    inside, made = list[int](), [start]
    while len(inside) < LONGEST:
        reading = sorted({index for name in made for index, _ in network.readers.get(name, ())} - set(inside))
        if not reading or any(name in network.outputs for name in made[:-1]) or start in network.outputs:
            return None
        node = network.nodes[reading[0]]
        if not _pointwise(network, node, made):
            return None
        inside.append(reading[0])
        made.append(node.output[0])
        open_names = [n for n in made if any(index not in inside for index, _ in network.readers.get(n, ()))]
        if open_names == [made[-1]]:
            return Link(tuple(inside), start, made[-1])
    return None


def _pointwise(network: Network, node: NodeProto, made: Sequence[str]) -> bool:
    others = [name for name in node.input if name and name not in made]
    constant = all(name in network.constants for name in others)
    if node.op_type == "BatchNormalization":
        return constant and node.input[0] in made and len([name for name in node.output if name]) == 1
    return constant and node.op_type in SMOOTH | JOINING | {"Pow"}


def _apart(network: Network, node: NodeProto) -> bool:
    """True for pooling windows that do not overlap, and are not padded."""
    kernel, strides = attribute(node, "kernel_shape"), attribute(node, "strides")
    pads, auto = attribute(node, "pads", ()), attribute(node, "auto_pad", b"NOTSET")
    assert isinstance(kernel, Sequence)
    given = strides if isinstance(strides, Sequence) else (1,) * len(kernel)
    plain = not any(pads if isinstance(pads, Sequence) else ()) and auto in (b"NOTSET", b"VALID", "NOTSET", "VALID")
    special = any(attribute(node, name, 0) for name in ("ceil_mode", "storage_order"))
    dilations = attribute(node, "dilations", (1,))
    spread = isinstance(dilations, Sequence) and any(int(item) != 1 for item in dilations)
    exact = node.op_type == "MaxPool" or tuple(kernel) == tuple(given)
    return plain and not special and not spread and exact and all(int(k) <= int(s) for k, s in zip(kernel, given, strict=True))


def _depthwise(network: Network, node: NodeProto) -> bool:
    if node.input[1] not in network.constants or attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", "NOTSET"):
        return False
    shape = network.array(node.input[1]).shape
    return shape[1] == 1 and attribute(node, "group", 1) == shape[0]


def _transposable(network: Network, reader: Contraction) -> bool:
    node = network.node(reader.node)
    if node.op_type == "Conv":
        return attribute(node, "auto_pad", b"NOTSET") in (b"NOTSET", "NOTSET")
    plain = not attribute(node, "transA", 0) if node.op_type == "Gemm" else node.op_type == "MatMul"
    return bool(plain) and reader.weight.slot == 1


def adjoint(network: Network, way: Way, weights: Mapping[Use, Array]) -> Adjoint:
    """Return the adjoint of `way` with the constants `weights` in place of the network's."""
    return Adjoint(output=way.producer.output.tensor, model=_Writer(network, weights).write(way).SerializeToString())


class _Writer:
    """Writes the model: forwards through the links, then backwards through the reader and the links."""

    def __init__(self, network: Network, weights: Mapping[Use, Array]) -> None:
        self._network, self._weights = network, weights
        self._nodes: list[NodeProto] = []
        self._constants: dict[str, Array] = {}

    def write(self, way: Way) -> ModelProto:
        """Return the model; see the module."""
        self._channels = channels_of(self._network, way.producer)
        values = {way.producer.output.tensor: OUTPUT}
        backwards = []
        for link in way.links:
            inside = values[link.start]
            node = self._network.nodes[link.nodes[0]]
            if len(link.nodes) == 1 and node.op_type in (*LAYOUT, "GlobalAveragePool", "MaxPool", "AveragePool", "Conv"):
                end, indices = self._forward(link, inside)
                backwards.append((link, inside, end, indices))
            else:
                end = self._function(link, inside)
                backwards.append((link, inside, end, ""))
            values[link.end] = end
        gradient = self._through_reader(way.reader, values[way.reader.input.tensor])
        for link, inside, end, indices in reversed(backwards):
            gradient = self._through(link, inside, end, indices, gradient)
        self._nodes.append(helper.make_node("Identity", [gradient], [GRADIENT]))
        graph = helper.make_graph(
            self._nodes,
            "adjoint",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (OUTPUT, RESIDUAL)],
            [helper.make_tensor_value_info(GRADIENT, TensorProto.FLOAT, None)],
            [numpy_helper.from_array(value, name) for name, value in self._constants.items()],
        )
        proto = self._network.proto
        return helper.make_model(graph, opset_imports=proto.opset_import, ir_version=max(4, proto.ir_version))

    def _add(self, op: str, inputs: Sequence[str], outputs: int = 1, **attributes: object) -> list[str]:
        made = [f"{op}_{len(self._nodes)}_{number}" for number in range(outputs)]
        self._nodes.append(helper.make_node(op, list(inputs), made, **attributes))
        return made

    def _constant(self, value: Array) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants[name] = value
        return name

    def _of(self, index: int, slot: int) -> Array:
        """The constant in a slot, as it is now."""
        use = Use(self._network.labels[index], slot)
        return self._weights[use] if use in self._weights else self._network.array(self._network.nodes[index].input[slot])

    def _copy(self, index: int, known: Mapping[str, str], outputs: int = 1) -> list[str]:
        """Add node `index` with the tensors `known` under their new names."""
        node = self._network.nodes[index]
        copy = NodeProto()
        copy.CopyFrom(node)
        given = [use.slot for use in self._weights if use.node == self._network.labels[index]]
        inputs = []
        for slot in range(max(len(node.input), *(place + 1 for place in given), 0)):
            name = node.input[slot] if slot < len(node.input) else ""
            inputs.append(known.get(name) or (self._constant(self._of(index, slot)) if name or slot in given else ""))
        made = [f"{node.op_type}_{len(self._nodes)}_{number}" for number in range(outputs)]
        del copy.input[:], copy.output[:]
        copy.input.extend(inputs)
        copy.output.extend(made)
        copy.name = ""
        self._nodes.append(copy)
        return made

    def _forward(self, link: Link, inside: str) -> tuple[str, str]:
        pooled = self._network.nodes[link.nodes[0]].op_type == "MaxPool"
        made = self._copy(link.nodes[0], {link.start: inside}, 2 if pooled else 1)
        return made[0], made[-1]

    def _function(self, link: Link, inside: str) -> str:
        known = {link.start: inside}
        for index in link.nodes:
            known[self._network.nodes[index].output[0]] = self._copy(index, known)[0]
        return known[link.end]

    def _through(self, link: Link, inside: str, end: str, indices: str, gradient: str) -> str:
        index = link.nodes[0]
        node = self._network.nodes[index]
        single = node.op_type if len(link.nodes) == 1 else ""
        if single == "Transpose":
            perm = attribute(node, "perm", ())
            back = [int(place) for place in np.argsort(np.array(perm))] if isinstance(perm, Sequence) and perm else None
            return self._add("Transpose", [gradient], **({"perm": back} if back else {}))[0]
        if single in LAYOUT:
            return self._add("Reshape", [gradient, self._shape(inside)])[0]
        if single == "GlobalAveragePool":
            sizes = [self._add("Cast", self._add("Size", [name]), to=TensorProto.FLOAT)[0] for name in (inside, end)]
            share = self._add("Div", [sizes[1], sizes[0]])[0]
            return self._add("Expand", [self._add("Mul", [gradient, share])[0], self._shape(inside)])[0]
        if single == "MaxPool":
            shape = {name: attribute(node, name) for name in ("kernel_shape", "strides") if attribute(node, name) is not None}
            return self._add("MaxUnpool", [gradient, indices, self._shape(inside)], **shape)[0]
        if single == "AveragePool":
            kernel = [int(size) for size in attribute(node, "kernel_shape")]  # type: ignore[union-attr]
            channels = self._channels
            weight = np.full((channels, 1, *kernel), 1.0 / np.prod(kernel), np.float32)
            return self._convolved(gradient, weight, inside, group=channels, strides=kernel)
        if single == "Conv":
            return self._transposed(index, self._of(index, 1), gradient, inside)
        return self._differences(link, inside, gradient)

    def _differences(self, link: Link, inside: str, gradient: str) -> str:
        size = self._add("Mul", [self._add("Abs", [inside])[0], self._constant(np.array(RELATIVE, np.float32))])[0]
        step = self._add("Add", [size, self._constant(np.array(ABSOLUTE, np.float32))])[0]
        right, left = self._add("Add", [inside, step])[0], self._add("Sub", [inside, step])[0]
        rise = self._add("Sub", [self._function(link, right), self._function(link, left)])[0]
        slope = self._add("Div", [rise, self._add("Sub", [right, left])[0]])[0]
        return self._add("Mul", [gradient, slope])[0]

    def _through_reader(self, reader: Contraction, inside: str) -> str:
        network = self._network
        index = network.position[reader.node]
        node, weight = network.nodes[index], self._of(index, 1)
        if node.op_type == "Conv":
            return self._transposed(index, weight, RESIDUAL, inside)
        alpha, transposed = (1.0, False) if node.op_type == "MatMul" else (
            Kernel.from_node(node, weight.shape).alpha,
            bool(attribute(node, "transB", 0)),
        )
        back = np.ascontiguousarray(weight if transposed else weight.T) * np.float32(alpha)
        return self._add("MatMul", [RESIDUAL, self._constant(back)])[0]

    def _transposed(self, index: int, weight: Array, gradient: str, inside: str) -> str:
        kernel = Kernel.from_node(self._network.nodes[index], weight.shape)
        assert kernel.kind is Kind.CONV
        return self._convolved(
            gradient, weight, inside, group=kernel.groups, strides=kernel.strides, pads=kernel.pads, dilations=kernel.dilations
        )

    def _convolved(self, gradient: str, weight: Array, inside: str, **attributes: object) -> str:
        """ConvTranspose, cropped to the shape of `inside`: at stride s up to s - 1 positions at the end are seen by nobody."""
        strides = [int(size) for size in attributes["strides"]]  # type: ignore[attr-defined]
        lists = {name: list(value) if isinstance(value, tuple) else value for name, value in attributes.items()}
        name = self._constant(np.ascontiguousarray(weight))
        whole = self._add("ConvTranspose", [gradient, name], output_padding=[s - 1 for s in strides], **lists)[0]
        if all(size == 1 for size in strides):
            return whole
        starts = self._constant(np.zeros(2 + len(strides), np.int64))
        return self._add("Slice", [whole, starts, self._shape(inside)])[0]

    def _shape(self, name: str) -> str:
        return self._add("Shape", [name])[0]
