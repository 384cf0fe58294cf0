"""A model as it is trained: weights are inputs, a loss and the gradients of the weights are outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from onnx_subprune._typing import Array, Float32
from onnx_subprune.graph.gradients.reverse import free_of, gradients
from onnx_subprune.graph.gradients.tape import PREFIX, NoGradientError, Seen, Shape, Tape
from onnx_subprune.graph.operators import STANDARD, attribute, key_of
from onnx_subprune.graph.order import captured, topological
from onnx_subprune.graph.tensors import tensor_array
from onnx_subprune.runtime.observing import Observer

LEARNED: Mapping[str, tuple[int, ...]] = {
    "BatchNormalization": (1, 2),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "GRU": (1, 2, 3),
    "Gemm": (0, 1, 2),
    "InstanceNormalization": (1, 2),
    "LSTM": (1, 2, 3),
    "LayerNormalization": (1, 2),
    "MatMul": (0, 1),
    "RNN": (1, 2, 3),
}
"""The inputs, by operator, whose constants are learned; so are those that are added to what such an operator makes."""
MOVING = frozenset(("Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"))
"""Operators that may stand between a weight and what reads it."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What is made smaller: a tensor of the model, and how it is held against a target.

    softmax: the divergence from a distribution, at this temperature; None for squared errors. weight: a factor of its share of the loss.
    """

    tensor: str
    weight: float = 1.0
    softmax: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Training:
    """A model to train and one to judge by, both with weights and targets as inputs, and the loss as their first output.

    weights: by name, as they are; left: how many are not learned, `because` of what is in the way. targets: names of the inputs for targets, in the
    order of the objectives. gradients: by weight, the output that has its gradient. activations: bytes of all tensors of the
    model in such a run.
    """

    model: ModelProto
    judge: ModelProto
    weights: Mapping[str, Float32]
    targets: tuple[str, ...]
    gradients: Mapping[str, str]
    left: int = 0
    because: str | None = None
    activations: int = 0

    @property
    def loss(self) -> str:
        """The output with the loss, a mean over samples."""
        return str(self.model.graph.output[0].name)


def learned(graph: GraphProto, nodes: Sequence[NodeProto]) -> tuple[str, ...]:
    """Return the float32 initializers that are learned: weights and biases of layers and normalizations."""
    known = {item.name for item in graph.initializer if item.data_type == TensorProto.FLOAT and len(item.dims)}
    source = {name: name for name in known}
    makers: set[str] = set()
    found: dict[str, None] = {}
    for node in nodes:
        key = key_of(node)
        slots: tuple[int, ...] = LEARNED.get(key, ())
        if key == "Add" and makers.intersection(node.input):
            slots = (0, 1)
        found.update(
            {source[node.input[slot]]: None for slot in slots if slot < len(node.input) and node.input[slot] in source}
        )
        if key in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            makers.update(node.output)
        if key in MOVING and node.input[0] in source:
            source[node.output[0]] = source[node.input[0]]
    return tuple(found)


def training(
    model: ModelProto,
    folder: Path | None,
    feeds: tuple[Mapping[str, Array], Mapping[str, Array]],
    goals: Sequence[Objective],
) -> Training:
    """Return `model` as it is trained on runs of the sizes of `feeds`.

    feeds: two runs with different samples, which tell what depends on them. Weights on whose way an operator without gradient lies are
    not learned; raises NoGradientError where these are all.
    """
    seen = seen_in(model, folder, feeds)
    model = lifted(model)
    nodes = topological(model.graph)
    weights: Sequence[str] = learned(model.graph, nodes)
    every, because = len(weights), None
    while True:
        tape = Tape(seen, max((item.version for item in model.opset_import if item.domain in STANDARD), default=1))
        losses, seeds, each = _losses(tape, goals, next(iter(feeds[0].values())).shape[0] if feeds[0] else 1)
        before = len(tape.nodes)
        try:
            found = gradients(tape, nodes, seeds, weights)
            break
        except NoGradientError as error:
            left = free_of(error, tape, nodes, weights)
            if not left or len(left) == len(weights):
                raise
            weights, because = left, because or str(error)
    if not found:
        raise NoGradientError(because or "no weights of float32 that lead to the outputs")
    values = {
        item.name: np.array(tensor_array(item, folder), np.float32)
        for item in model.graph.initializer
        if item.name in found
    }
    shapes = {**{name: value.shape for name, value in values.items()}, **_targets(goals, seen)}
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    return Training(
        model=_model(model, [*nodes, *tape.nodes], tape.constants, ports, [losses, *found.values()]),
        judge=_model(model, [*nodes, *tape.nodes[:before]], tape.constants, ports, [losses, *([each] if each else [])]),
        weights=values,
        targets=tuple(_targets(goals, seen)),
        gradients=found,
        activations=sum(prod(seen[name].shape) * 4 for node in nodes for name in node.output if name in seen),
        left=every - len(weights),
        because=because,
    )


def _targets(goals: Sequence[Objective], seen: Mapping[str, Seen]) -> dict[str, Shape]:
    """The inputs for targets, with their shapes."""
    return {f"{PREFIX}target {number}": seen[goal.tensor].shape for number, goal in enumerate(goals)}


def _losses(tape: Tape, goals: Sequence[Objective], batch: int) -> tuple[str, dict[str, str], str | None]:
    """The sum of the losses, its gradients by tensor, and the losses by sample; None where an output does not begin with the samples."""
    losses, seeds, each = [], dict[str, str](), list[str]()
    for goal, target in zip(goals, _targets(goals, tape.seen), strict=True):
        part, seed = _loss(tape, goal, target, batch)
        losses.append(tape.total(part, [0]) if tape.shape(goal.tensor) else part)
        each += [part] if tape.shape(goal.tensor)[:1] == (batch,) else []
        seeds[goal.tensor] = tape.op("Sum", seeds[goal.tensor], seed) if goal.tensor in seeds else seed
    whole, alone = (parts[0] if len(parts) == 1 else tape.op("Sum", *parts) for parts in (losses, each or losses))
    return whole, seeds, alone if len(each) == len(goals) else None


def lifted(model: ModelProto) -> ModelProto:
    """Return the model with its constants of float32 as initializers; `model` itself where it has none. It is not changed."""
    held = {node.output[0]: tensor for node in model.graph.node if (tensor := weight_in(node)) is not None}
    if not held:
        return model
    found = ModelProto()
    found.CopyFrom(model)
    del found.graph.node[:]
    found.graph.node.extend(node for node in model.graph.node if node.output[0] not in held)
    for name, tensor in held.items():
        found.graph.initializer.append(tensor)
        found.graph.initializer[-1].name = name
    return found


def weight_in(node: NodeProto) -> TensorProto | None:
    """Return the tensor of a Constant that may be a weight: float32, with axes."""
    held = attribute(node, "value") if key_of(node) == "Constant" else None
    found = isinstance(held, TensorProto) and held.data_type == TensorProto.FLOAT and len(held.dims) > 0
    return held if found and isinstance(held, TensorProto) else None


def seen_in(
    model: ModelProto, folder: Path | None, feeds: tuple[Mapping[str, Array], Mapping[str, Array]]
) -> dict[str, Seen]:
    """Return what is known of all tensors; values are left out where they differ between two runs."""
    observer = Observer(model, folder)
    first, second = (observer(run) for run in feeds)
    found = {}
    for name, item in first.items():
        other = second.get(name)
        if other is None or other.shape != item.shape:
            continue
        same = item.value is not None and other.value is not None and np.array_equal(item.value, other.value)
        found[name] = Seen(item.shape, item.dtype, item.value if same and name not in feeds[0] else None)
    for tensor in model.graph.initializer:
        kind = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        value = tensor_array(tensor, folder) if kind.kind in "iub" else None
        found[tensor.name] = Seen(tuple(tensor.dims), kind, value)
    for node in model.graph.node:
        held = attribute(node, "value") if key_of(node) == "Constant" else None
        if isinstance(held, TensorProto) and node.output[0] not in found:
            value = tensor_array(held, folder)
            found[node.output[0]] = Seen(value.shape, value.dtype, value if value.dtype.kind in "iub" else None)
    return found


def _loss(tape: Tape, goal: Objective, target: str, batch: int) -> tuple[str, str]:
    """The loss of an objective by the first axis, whose sum is a mean over samples, and its gradient in the tensor."""
    shape = tape.shape(goal.tensor)
    axes = [*range(1, len(shape))]
    if goal.softmax is None:
        apart = tape.op("Sub", goal.tensor, target)
        loss = tape.op("Mul", tape.total(tape.op("Mul", apart, apart), axes), tape.number(goal.weight / batch))
        return loss, tape.op("Mul", apart, tape.number(2 * goal.weight / batch))
    heat = goal.softmax
    logs = tape.softmax(tape.op("Mul", goal.tensor, tape.number(1 / heat)), shape, log=True)
    scale = heat * heat * goal.weight / batch
    loss = tape.op("Mul", tape.total(tape.op("Mul", logs, target), axes), tape.number(-scale))
    return loss, tape.op("Mul", tape.op("Sub", tape.op("Exp", logs), target), tape.number(scale / heat))


def _model(
    model: ModelProto,
    nodes: Sequence[NodeProto],
    constants: Sequence[TensorProto],
    ports: Sequence[ValueInfoProto],
    outputs: Sequence[str],
) -> ModelProto:
    """A model of those nodes that `outputs` need; ports: what becomes an input."""
    given, needed, kept = {item.name for item in ports}, set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update((*node.input, *captured(node)))
    graph = GraphProto(name="training")
    graph.node.extend(reversed(kept))
    held = {item.name for item in model.graph.initializer}
    graph.input.extend(item for item in model.graph.input if item.name not in given | held)
    graph.input.extend(item for item in ports if item.name in needed)
    graph.initializer.extend(item for item in model.graph.initializer if item.name not in given)
    graph.initializer.extend(item for item in constants if item.name in needed)
    graph.sparse_initializer.extend(model.graph.sparse_initializer)
    graph.output.extend(ValueInfoProto(name=name) for name in outputs)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
