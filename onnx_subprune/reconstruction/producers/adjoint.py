"""Back from what a layer puts out wrong to what the layer before it should have made: the transposed derivative of the chain between.

An `Adjoint` is a small model of its own, which computes

    gradient = J' residual,    J = the derivative of the reader's output with respect to the producer's output

Elementwise functions are differentiated by central differences of themselves, so that any activation will do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_subprune._typing import Array, Int64
from onnx_subprune.calibration.streaming.target import GRADIENT, OUTPUT, RESIDUAL, Adjoint, beside
from onnx_subprune.graph.channels import Contraction, Use
from onnx_subprune.graph.contractions.convolution import Convolution
from onnx_subprune.graph.contractions.reading import kernel_at
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import attribute, key_of
from onnx_subprune.reconstruction.producers.chains import Chain, Link, separate, whole_numbers

RELATIVE, ABSOLUTE = 2.0**-9, 2.0**-12
"""Half the step of the differences, as a share of the value, and what is added to that."""
HOMOGENEOUS, LEAST = frozenset(("Relu", "LeakyRelu", "PRelu", "Identity", "Abs")), 2.0**-120
"""Functions that look the same at every scale, as their slopes must, and what is added for these."""


def adjoint(
    network: Network,
    chain: Chain,
    weights: Mapping[Use, Array],
    outputs: Int64 | None = None,
    channels: Int64 | None = None,
) -> Adjoint:
    """Return the adjoint of `chain` with the constants `weights` in place of the network's.

    outputs, channels: those of the reader's output that the residual has, and of the producer's that the gradient has; None for all. There is one
    convolution group where there are some.
    """
    narrow = channels if separate(network, chain) else None
    model = _Writer(network, weights, chain, outputs, channels, narrow=narrow is not None).write()
    return Adjoint(
        output=chain.producer.output.tensor,
        model=model.SerializeToString(deterministic=True),
        channels=narrow,
        axis=chain.producer.output.index,
        beside=chain.beside,
    )


@dataclass(frozen=True, slots=True)
class _Passed:
    """A link, the names of what goes in and comes out, and where a pooled maximum lay."""

    link: Link
    inside: str
    outside: str
    places: str = ""


class _Writer:
    """Writes the model: forwards through the links, then backwards through the reader and the links."""

    def __init__(
        self,
        network: Network,
        weights: Mapping[Use, Array],
        chain: Chain,
        outputs: Int64 | None,
        channels: Int64 | None,
        *,
        narrow: bool,
    ) -> None:
        self._network, self._weights, self._chain = network, weights, chain
        self._outputs, self._channels = outputs, channels
        self._nodes: list[NodeProto] = []
        self._constants: dict[str, Array] = {}
        self._narrow = narrow

    def write(self) -> ModelProto:
        """Return the model; see the module."""
        here, passed = OUTPUT, list[_Passed]()
        for link in self._chain.links:
            passed.append(self._forwards(link, here))
            here = passed[-1].outside
        gradient = self._through_reader(self._chain.reader, here)
        for item in reversed(passed):
            gradient = self._backwards(item, gradient)
        if self._channels is not None and not self._narrow:
            place = self._chain.producer.output.index
            gradient = self._add("Gather", gradient, self._constant(self._channels), axis=place)
        self._nodes.append(helper.make_node("Identity", [gradient], [GRADIENT]))
        graph = helper.make_graph(
            self._nodes,
            "adjoint",
            [
                *(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (OUTPUT, RESIDUAL)),
                *(helper.make_tensor_value_info(beside(name), TensorProto.INT64, None) for name in self._chain.beside),
            ],
            [helper.make_tensor_value_info(GRADIENT, TensorProto.FLOAT, None)],
            [numpy_helper.from_array(value, name) for name, value in self._constants.items()],
        )
        proto = self._network.proto
        return helper.make_model(graph, opset_imports=proto.opset_import, ir_version=max(4, proto.ir_version))

    def _add(self, op: str, *inputs: str, **attributes: Sequence[int] | int) -> str:
        made = f"{op}_{len(self._nodes)}"
        node = helper.make_node(op, list(inputs), [made])
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        self._nodes.append(node)
        return made

    def _constant(self, value: Array) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants[name] = np.ascontiguousarray(value)
        return name

    def _number(self, value: float) -> str:
        name = self._constant(np.zeros(()))
        self._constants[name] = np.array(value, np.float32)
        return name

    def _now(self, index: int, slot: int) -> Array:
        """The constant in a slot, as it is in the pruned model; of the channels that count."""
        use, node = Use(self._network.labels[index], slot), self._network.nodes[index]
        value = self._weights[use] if use in self._weights else self._network.array(node.input[slot])
        if key_of(node) == "BatchNormalization" and self._narrow:
            return value[self._channels]
        return value

    def _copied(self, index: int, known: Mapping[str, str], outputs: int = 1) -> list[str]:
        """Add node `index`, which reads the tensors `known` under new names."""
        node, label = self._network.nodes[index], self._network.labels[index]
        slots = max(len(node.input), *(use.slot + 1 for use in self._weights if use.node == label), 0)
        inputs = []
        for slot in range(slots):
            name = node.input[slot] if slot < len(node.input) else ""
            fixed = name or Use(label, slot) in self._weights
            inputs.append(known.get(name) or (self._constant_in(index, slot) if fixed else ""))
        copy = NodeProto()
        copy.CopyFrom(node)
        made = [f"{node.op_type}_{len(self._nodes)}_{number}" for number in range(outputs)]
        del copy.input[:], copy.output[:]
        copy.input.extend(inputs)
        copy.output.extend(made)
        copy.name = ""
        self._nodes.append(copy)
        return made

    def _constant_in(self, index: int, slot: int) -> str:
        value = self._now(index, slot)
        name = self._constant(value)
        self._constants[name] = value  # a scalar stays one
        return name

    def _forwards(self, link: Link, inside: str) -> _Passed:
        if link.elementwise:
            return _Passed(link, inside, self._function(link, inside))
        pooled = key_of(self._network.nodes[link.nodes[0]]) == "MaxPool"
        known = {link.start: inside, **{name: beside(name) for name in link.beside}}
        made = self._copied(link.nodes[0], known, 2 if pooled else 1)
        return _Passed(link, inside, made[0], made[-1])

    def _function(self, link: Link, inside: str) -> str:
        known = {link.start: inside}
        for index in link.nodes:
            known[self._network.nodes[index].output[0]] = self._copied(index, known)[0]
        return known[link.end]

    def _backwards(self, passed: _Passed, gradient: str) -> str:
        if passed.link.elementwise:
            return self._add("Mul", gradient, self._slope(passed.link, passed.inside))
        index = passed.link.nodes[0]
        node, shape = self._network.nodes[index], self._add("Shape", passed.inside)
        match key_of(node):
            case "Transpose":
                order = whole_numbers(node, "perm")
                back = [int(place) for place in np.argsort(np.array(order))]
                return self._add("Transpose", gradient, **({"perm": back} if order else {}))
            case "MaxPool":
                windows = {name: whole_numbers(node, name) for name in ("kernel_shape", "strides")}
                return self._add("MaxUnpool", gradient, passed.places, shape, **windows)
            case "GlobalAveragePool":
                sizes = [self._add("Size", name) for name in (passed.outside, passed.inside)]
                few, many = (self._add("Cast", size, to=TensorProto.FLOAT) for size in sizes)
                return self._add("Expand", self._add("Mul", gradient, self._add("Div", few, many)), shape)
            case "AveragePool":
                window = whole_numbers(node, "kernel_shape")
                count = self._count()
                weight = np.full((count, 1, *window), 1.0 / np.prod(window), np.float32)
                return self._spread(gradient, weight, shape, group=count, strides=window)
            case "Conv":
                return self._transposed(index, self._now(index, 1), gradient, shape)
        return self._add("Reshape", gradient, shape)

    def _count(self) -> int:
        """How many channels there are on the way."""
        if self._channels is not None and self._narrow:
            return len(self._channels)
        producer = self._chain.producer
        size = int(self._network.array(producer.weight_tensor).shape[producer.columns.index])
        return size * producer.groups if producer.op == "ConvTranspose" else size

    def _slope(self, link: Link, inside: str) -> str:
        """The derivative of an elementwise function."""
        share = self._add("Mul", self._add("Abs", inside), self._number(RELATIVE))
        same = all(key_of(self._network.nodes[index]) in HOMOGENEOUS for index in link.nodes)
        step = self._add("Add", share, self._number(LEAST if same else ABSOLUTE))
        right, left = self._add("Add", inside, step), self._add("Sub", inside, step)
        rise = self._add("Sub", self._function(link, right), self._function(link, left))
        return self._add("Div", rise, self._add("Sub", right, left))

    def _through_reader(self, reader: Contraction, inside: str) -> str:
        index = self._network.position[reader.node]
        node = self._network.nodes[index]
        if key_of(node) == "Conv":
            return self._transposed(index, self._counting(self._now(index, 1)), RESIDUAL, self._add("Shape", inside))
        weight = self._now(index, 1)
        alpha = kernel_at(node, weight.shape).alpha
        back = self._counting(weight if attribute(node, "transB", 0) else weight.T).astype(np.float32, copy=False)
        return self._add("MatMul", RESIDUAL, self._constant(back * np.float32(alpha) if alpha != 1.0 else back))

    def _counting(self, weight: Array) -> Array:
        """The reader's weight, (m, c, ...), for those of its outputs and inputs that count."""
        weight = weight if self._outputs is None else weight[self._outputs]
        return weight[:, self._channels] if self._narrow else weight

    def _transposed(self, index: int, weight: Array, gradient: str, shape: str) -> str:
        kernel = kernel_at(self._network.nodes[index], self._now(index, 1).shape)
        assert isinstance(kernel, Convolution), "only of convolutions"
        reach = [(size - 1) * dilation for size, dilation in zip(kernel.kernel, kernel.dilations, strict=True)]
        pads = [size - pad for size, pad in zip([*reach, *reach], kernel.pads, strict=True)]
        if kernel.groups == 1 and all(stride == 1 for stride in kernel.strides) and min(pads) >= 0:
            turned = np.flip(weight.swapaxes(0, 1), axis=tuple(range(2, weight.ndim)))
            return self._add("Conv", gradient, self._constant(turned), pads=pads, dilations=kernel.dilations)
        more = {"pads": kernel.pads, "dilations": kernel.dilations}
        return self._spread(gradient, weight, shape, group=kernel.groups, strides=kernel.strides, **more)

    def _spread(
        self, gradient: str, weight: Array, shape: str, *, strides: Sequence[int], **attributes: Sequence[int] | int
    ) -> str:
        """ConvTranspose, cropped to `shape`: at stride s, up to s - 1 positions at the end of the input are read by nobody."""
        rest = [stride - 1 for stride in strides]
        spread = self._constant(weight)
        whole = self._add("ConvTranspose", gradient, spread, strides=strides, output_padding=rest, **attributes)
        begin = np.zeros(2 + len(rest), np.int64)
        return self._add("Slice", whole, self._constant(begin), shape) if any(rest) else whole
