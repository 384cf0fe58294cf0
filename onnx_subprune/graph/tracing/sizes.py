"""Where sizes of tensors flow: which values computed at run time depend on the size of which axis.

`Shape` reads sizes. Moved about and written into a Reshape target they are harmless, since `resize` rules overwrite
what is spelled out. Entering a computation they are not: then the axis must keep its size.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from onnx_subprune.graph.channels import Axis
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.observation import Observation
from onnx_subprune.graph.operators import attribute, key_of
from onnx_subprune.graph.order import captured
from onnx_subprune.graph.rules.reshape import follows
from onnx_subprune.graph.rules.vocabulary import Rule, Site

Sources = frozenset[Axis]
SourceArray = NDArray[np.object_]
"""For each element of a small tensor, the axes whose sizes it depends on (an array of `Sources`)."""

SMALL = 4096
"""Larger constants are not followed element by element."""
MOVING = frozenset({"Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape"})
ELEMENTWISE = frozenset(
    {
        "Abs",
        "Add",
        "And",
        "Div",
        "Equal",
        "Greater",
        "Less",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "Sub",
        "Where",
    }
)


def size_sources(network: Network, observation: Observation, rules: Mapping[str, Rule]) -> Mapping[str, SourceArray]:
    """Return the sources of every tensor that depends on some size, other than through a slot that a rule rewrites."""
    found: dict[str, SourceArray] = {}
    for node in network.nodes:
        if key_of(node) in ("Shape", "Size") and node.input[0] not in network.constants:
            shape = observation.shapes.get(node.input[0], ())
            axes = [frozenset({Axis(node.input[0], index)}) for index in range(len(shape))]
            found[node.output[0]] = _whole(axes) if key_of(node) == "Size" else _array(axes)[_window(node)]
        elif any(name in found and slot not in spelled(node, rules) for slot, name in enumerate(node.input)):
            for name in node.output:
                if name:
                    found[name] = _propagate(node, network, observation, found, name, spelled(node, rules))
    return found


def spelled(node: NodeProto, rules: Mapping[str, Rule]) -> tuple[int, ...]:
    """Return the input slots of `node` that hold sizes or positions which its rule rewrites."""
    rule = rules.get(key_of(node))
    return rule.spelled if rule is not None else ()


def _window(node: NodeProto) -> slice:
    start, end = attribute(node, "start", 0), attribute(node, "end")
    assert isinstance(start, int)
    assert end is None or isinstance(end, int)
    return slice(start, end)


def _array(items: list[Sources]) -> SourceArray:
    array = np.empty(len(items), object)
    array[:] = items
    return array


def _whole(items: list[Sources]) -> SourceArray:
    array = np.empty((), object)
    array[()] = frozenset().union(*items)
    return array


def _propagate(
    node: NodeProto,
    network: Network,
    observation: Observation,
    found: Mapping[str, SourceArray],
    output: str,
    rewritten: tuple[int, ...],
) -> SourceArray:
    """Element by element through operators that move or combine elements, everything to everything through others.

    What the slots `rewritten` spell out is adapted, and does not count.
    """

    def of(name: str) -> SourceArray:
        if name in found:
            return found[name]
        value = network.array(name) if name in network.constants else observation.values.get(name, np.zeros(()))
        array = np.empty(value.shape if value.size <= SMALL else (), object)
        array.fill(frozenset())
        return array

    shape = observation.shapes.get(output, ())
    first = of(node.input[0])
    if key_of(node) in MOVING and first.size == np.prod(shape):
        return first.reshape(shape)
    if key_of(node) in ELEMENTWISE:
        parts = [of(name) for name in node.input]
        if np.broadcast_shapes(*(part.shape for part in parts)) == shape:
            lined = [np.broadcast_to(part, shape).ravel() for part in parts]
            return _array([frozenset().union(*items) for items in zip(*lined, strict=True)]).reshape(shape)
    if key_of(node) == "Concat":
        parts = [of(name) for name in node.input]
        if all(part.ndim == 1 for part in parts):
            return np.concatenate(parts)
    if key_of(node) == "Gather" and first.ndim == 1 and node.input[1] in network.constants:
        indices = network.array(node.input[1]).astype(np.int64)
        picked = first[indices]
        return picked if isinstance(picked, np.ndarray) else _whole([picked])
    if key_of(node) == "Slice" and first.ndim == 1:
        cut = _cut(node, network)
        if cut is not None:
            return first[cut]
    read = [name for slot, name in enumerate(node.input) if name and slot not in rewritten]
    made = _whole([source for name in read for source in of(name).ravel()])
    return np.full(shape, made, object) if np.prod(shape) <= SMALL else made


def _cut(node: NodeProto, network: Network) -> slice | None:
    """The part that a Slice of a vector leaves, None where its bounds are computed."""
    if len(node.input) == 1:
        starts, ends = attribute(node, "starts"), attribute(node, "ends")
        assert isinstance(starts, list)
        assert isinstance(ends, list)
        return slice(starts[0], ends[0])
    if not all(name in network.constants for name in node.input[1:] if name):
        return None
    bounds = [int(network.array(name).ravel()[0]) if name else None for name in node.input[1:]]
    return slice(bounds[0], bounds[1], bounds[3] if len(bounds) > 3 else 1)


def _left_computed(site: Site, name: str, sources: SourceArray) -> SourceArray:
    """The sources of what a slot that is rewritten still computes when the model runs, because it varies from run to run."""
    varying = site.observation.varying.get(name, np.ones((), bool))
    if not varying.any() or (key_of(site.node) == "Reshape" and follows(site)):
        return np.empty(0, object)
    return sources[varying] if varying.shape == sources.shape else sources.ravel()


def fixed_by_size(
    network: Network, observation: Observation, rules: Mapping[str, Rule], sources: Mapping[str, SourceArray]
) -> Mapping[Axis, str]:
    """Return the axes that must keep their size, each with the label of the node that computes with it."""
    fixed: dict[Axis, str] = {}
    for index, (label, node) in enumerate(zip(network.labels, network.nodes, strict=True)):
        rewritten = spelled(node, rules)
        for slot, name in enumerate(node.input):
            if name not in sources:
                continue
            flat = sources[name].ravel()
            if slot in rewritten:
                flat = _left_computed(Site(network, observation, index), name, sources[name])
            elif all(output in sources and output in observation.values for output in node.output if output):
                continue
            for axis in frozenset[Axis]().union(*flat):
                fixed.setdefault(axis, label)
        for name in captured(node):
            for axis in frozenset[Axis]().union(*sources[name].ravel()) if name in sources else ():
                fixed.setdefault(axis, label)
    for name in network.outputs:
        for axis in frozenset[Axis]().union(*sources[name].ravel()) if name in sources else ():
            fixed.setdefault(axis, "an output of the model")
    return fixed
