"""The part of a model between some tensors and others, with other constants in places: what a stream runs.

It is put together from serialized pieces: there are hundreds of such parts in a walk, and most of their nodes are those of the model.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_subprune._typing import Array
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import attribute, biased, key_of, set_input
from onnx_subprune.graph.order import captured
from onnx_subprune.runtime.protobuf import Field, in_graph
from onnx_subprune.runtime.weights import Pieces

SIZES = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Pad": (1,),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Tile": (1,),
    "Upsample": (1,),
}
"""Operators, and those of their inputs that have a number for each axis."""
PASSED = frozenset(("Add", "Cast", "Ceil", "Concat", "Div", "Floor", "Identity", "Mul", "Sub"))
"""Operators whose inputs have such numbers if their outputs have."""
REMEMBERED = 4096
"""Inputs and outputs whose text is kept."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Changed:
    """Uses that see other constants than the model's: those given here, and those that come as inputs, of these ONNX element types."""

    constants: Mapping[Use, Array]
    inputs: Mapping[Use, int]


def slot_name(use: Use) -> str:
    """Return the name of the tensor that comes in the place of a constant."""
    return f"{use.node}/override/{use.slot}"


def part_of(
    network: Network, nodes: Sequence[int], inputs: Mapping[str, Array], outputs: Sequence[str], changed: Changed
) -> Pieces:
    """Return the model of `nodes`, which computes `outputs` from tensors like `inputs`.

    It has every constant that its nodes read, those that the bodies of control flow capture and sparse ones among them.
    """
    texts, weights, read = [_head(network), in_graph(Field.NAME, b"part")], list[TensorProto](), set(outputs)
    by_node: dict[str, set[Use]] = {}
    for use in (*changed.constants, *changed.inputs):
        by_node.setdefault(use.node, set()).add(use)
    for index in nodes:
        if uses := sorted(by_node.get(network.labels[index], ()), key=lambda use: use.slot):
            made, given = _changed(network.nodes[index], uses, changed)
            texts += [in_graph(Field.NODE, node.SerializeToString()) for node in made]
            weights += given
            read.update(name for node in made for name in (*node.input, *captured(node)))
        else:
            texts.append(in_graph(Field.NODE, network.nodes[index].SerializeToString()))
            read.update(network.reads[index])
    weights += [tensor for name, tensor in network.initializers.items() if name in read]
    texts += [
        in_graph(Field.SPARSE_INITIALIZER, tensor.SerializeToString())
        for tensor in network.proto.graph.sparse_initializer
        if tensor.values.name in read
    ]
    texts += [_input(slot_name(use), kind, None) for use, kind in changed.inputs.items() if slot_name(use) in read]
    ranks = _sizes(network.nodes[index] for index in reversed(nodes))
    for name, array in inputs.items():
        shape = array.shape if name in ranks else (None,) * array.ndim
        texts.append(_input(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape))
    return Pieces([*texts, *map(_output, outputs)], weights)


def _sizes(nodes: Iterable[NodeProto]) -> set[str]:
    """What nodes, in reverse order, read a number for each axis of, or a part of that: runtimes must know how many."""
    found = set[str]()
    for node in nodes:
        found.update(node.input[slot] for slot in SIZES.get(node.op_type, ()) if slot < len(node.input))
        if node.op_type in PASSED and not found.isdisjoint(node.output):
            found.update(node.input)
    return found


def _head(network: Network) -> bytes:
    proto = network.proto
    head = ModelProto(opset_import=proto.opset_import, ir_version=max(4, proto.ir_version))
    return bytes(head.SerializeToString())


@lru_cache(REMEMBERED)
def _input(name: str, kind: int, shape: tuple[int | None, ...] | None) -> bytes:
    value = helper.make_tensor_value_info(name, kind, shape)
    return in_graph(Field.INPUT, value.SerializeToString())


@lru_cache(REMEMBERED)
def _output(name: str) -> bytes:
    return in_graph(Field.OUTPUT, helper.make_empty_tensor_value_info(name).SerializeToString())


def _changed(node: NodeProto, uses: Sequence[Use], changed: Changed) -> tuple[list[NodeProto], list[TensorProto]]:
    """The node with tensors in the slots of `uses`, behind what it needs, and the weights that come with it."""
    copy, before, weights = NodeProto(), list[NodeProto](), list[TensorProto]()
    copy.CopyFrom(node)
    for use in uses:
        set_input(copy, use.slot, slot_name(use))
        if use in changed.inputs:
            continue
        value = changed.constants[use]
        read = channels_read(key_of(node), value, attribute(node, "group", 1)) if use.slot == 1 else None
        if read is not None:  # channels that a weight has no use for are not read
            chosen, narrow = f"{slot_name(use)}/channels", f"{slot_name(use)}/input"
            weights.append(numpy_helper.from_array(read, chosen))
            before.append(helper.make_node("Gather", [copy.input[0], chosen], [narrow], axis=1))
            copy.input[0] = narrow
            value = value[:, read]
        weights.append(numpy_helper.from_array(np.ascontiguousarray(value), slot_name(use)))
    return [*before, *biased(copy)], weights


BLOCK = 16
"""onnxruntime is fastest where channels are a multiple of this: some are read for nothing."""


SPARED = 1 / 4
"""Gathering pays off from this share of the channels on."""


def channels_read(op: str, weight: Array, group: object) -> NDArray[np.int64] | None:
    """Return the input channels, sorted, that a convolution with `weight` (m, c, *kernel) should gather; None where it had better read all."""
    if op != "Conv" or group != 1 or weight.ndim < 3:
        return None
    alive = np.any(weight, axis=(0, *range(2, weight.ndim)))
    needed = -(-max(int(alive.sum()), 1) // BLOCK) * BLOCK
    if needed > (1 - SPARED) * len(alive):
        return None
    order = np.argsort(~alive, kind="stable")  # the living first
    return np.sort(order[:needed]).astype(np.int64)
