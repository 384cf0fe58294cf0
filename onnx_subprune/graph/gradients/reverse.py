"""Reverse-mode differentiation: from a scalar of a model to all of its weights, node by node from behind."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from onnx import NodeProto

from onnx_subprune.graph.gradients import elementwise, layout, linear, normalization, pooling, recurrent
from onnx_subprune.graph.gradients.elementwise import Rule
from onnx_subprune.graph.gradients.tape import Call, NoGradientError, Tape
from onnx_subprune.graph.operators import key_of
from onnx_subprune.graph.order import captured

GRADIENTS: Mapping[str, Rule] = MappingProxyType(
    {
        **elementwise.RULES,
        **layout.RULES,
        **linear.RULES,
        **normalization.RULES,
        **pooling.RULES,
        **recurrent.RULES,
    }
)
"""What is known of each operator."""


def gradients(
    tape: Tape,
    nodes: Sequence[NodeProto],
    seeds: Mapping[str, str],
    weights: Sequence[str],
) -> dict[str, str]:
    """Add nodes to `tape` that compute the gradients of `weights`; return their names, without those that nothing depends on.

    nodes: of the model, in topological order. seeds: gradients of some of its tensors. Nothing flows through tensors that are no floating-point
    numbers. Raises NoGradientError, with the node and its operator.
    """
    moved = _moved(tape, nodes, weights)
    pending: dict[str, list[str]] = {name: [seed] for name, seed in seeds.items()}
    for node in reversed(nodes):
        grads = tuple(_summed(tape, pending.pop(name, [])) if name else None for name in node.output)
        asked = tuple(name in moved for name in node.input)
        inside = not moved.isdisjoint(captured(node))
        if all(item is None for item in grads) or not (any(asked) or inside):
            continue
        for name, found in zip(node.input, _through(tape, node, grads, asked, inside=inside), strict=False):
            if found is not None and name in moved:
                pending.setdefault(name, []).append(found)
    summed = {name: _summed(tape, pending.get(name, [])) for name in weights}
    return {name: found for name, found in summed.items() if found is not None}


def free_of(error: NoGradientError, tape: Tape, nodes: Sequence[NodeProto], weights: Sequence[str]) -> list[str]:
    """Return the weights on whose way to the loss the node of `error` does not lie."""
    return [name for name in weights if _moved(tape, nodes, [name]).isdisjoint(error.node)]


def _moved(tape: Tape, nodes: Sequence[NodeProto], weights: Sequence[str]) -> set[str]:
    """The floating-point tensors that depend on weights."""
    found = set(weights)
    for node in nodes:
        if not found.isdisjoint((*node.input, *captured(node))):
            found.update(
                name for name in node.output if name and (name not in tape.seen or tape.seen[name].dtype.kind == "f")
            )
    return found


def _through(
    tape: Tape, node: NodeProto, grads: tuple[str | None, ...], asked: tuple[bool, ...], *, inside: bool
) -> list[str | None]:
    rule, label = GRADIENTS.get(key_of(node)), f"{node.name or node.output[0]} ({key_of(node)})"
    if rule is None or inside:
        raise NoGradientError(f"{label} has no gradient here", node.output)
    if any(
        name in tape.seen and tape.seen[name].dtype != np.float32
        for name, grad in zip(node.output, grads, strict=True)
        if grad
    ):
        raise NoGradientError(f"{label} makes other numbers than float32", node.output)
    try:
        return rule(Call(tape, node, grads, asked))
    except NoGradientError as error:
        raise NoGradientError(f"{label} has no gradient here: {error}", node.output) from error


def _summed(tape: Tape, parts: Sequence[str]) -> str | None:
    if len(parts) < 2:
        return parts[0] if parts else None
    return tape.op("Sum", *parts)
