"""What exporters tie recurrent layers together with, though nothing needs it: the model is loaded without.

A framework keeps the final states of all layers of a stack in one tensor, and its exporters join them, though one of them alone is read, `h[-1]`: all layers
would have to be equally wide. A part of a Concat is one of its inputs, so that this is exactly the same model. (The zeros that all layers begin with,
cut from one tensor as well, are no tie: see `rules.recurrent`.)
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from onnx_subprune.graph.order import captured

RECURRENT = frozenset(["GRU", "LSTM", "RNN"])
JOINING = frozenset(["Concat", "Constant"])
"""Operators that go where nobody reads what they make."""
SMALL = 1 << 16
"""Largest constant whose value is looked at, in numbers."""


def separated(proto: ModelProto) -> ModelProto:
    """Return the model without such ties; `proto` itself where it has none. It is not changed."""
    if not any(_recurrent(node) for node in proto.graph.node):
        return proto
    found = ModelProto()
    found.CopyFrom(proto)
    search = _Search(found)
    if not [*search.parts()]:
        return proto
    _remove_unread(found)
    return found


def _recurrent(node: NodeProto) -> bool:
    return node.op_type in RECURRENT and node.domain in ("", "ai.onnx")


class _Search:
    """Finds what can be told apart in `proto`, and does so."""

    def __init__(self, proto: ModelProto) -> None:
        self._graph = proto.graph
        self._made = {name: node for node in self._graph.node for name in node.output if name}
        given = {value.name for value in self._graph.input}
        self._stored = {tensor.name: tensor for tensor in self._graph.initializer if tensor.name not in given}

    def parts(self) -> Iterable[str]:
        """Let Gather and Slice read the input of a Concat of final states that they take something from; yield what they make."""
        for node in self._graph.node:
            if node.op_type == "Gather" and len(node.input) == 2:
                yield from self._gathered(node)
            elif node.op_type == "Slice" and len(node.input) >= 3:
                yield from self._sliced(node)

    def _constant(self, name: str) -> NDArray[np.generic] | None:
        tensor = self._stored.get(name)
        if tensor is None and name in self._made and self._made[name].op_type == "Constant":
            tensor = next((item.t for item in self._made[name].attribute if item.name == "value"), None)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL or np.prod(tensor.dims, dtype=float) > SMALL:
            return None
        return numpy_helper.to_array(tensor)

    def _whole(self, name: str) -> list[tuple[str, int]]:
        """The final states that `name` joins on its first axis, with their sizes there: directions; nothing, if it does not."""
        node = self._made.get(name)
        if node is None or node.op_type != "Concat" or _integer(node, "axis", 0) != 0:
            return []
        makers = [self._made.get(part) for part in node.input]
        found = [
            (part, 2 if _text(maker, "direction") == "bidirectional" else 1)
            for part, maker in zip(node.input, makers, strict=True)
            if maker is not None and _recurrent(maker) and part in list(maker.output)[1:]
        ]
        return found if len(found) == len(node.input) else []

    def _gathered(self, node: NodeProto) -> Iterable[str]:
        parts, index = self._whole(node.input[0]), self._constant(node.input[1])
        if not parts or index is None or index.ndim or _integer(node, "axis", 0) != 0:
            return
        size = sum(count for _, count in parts)
        place = int(index) % size if -size <= int(index) < size else None
        found = _within(parts, place, place + 1) if place is not None else None
        if found is not None:
            node.input[0] = found[0]
            node.input[1] = self._stored_as(node.output[0], np.array(found[1], np.int64))
            yield node.output[0]

    def _sliced(self, node: NodeProto) -> Iterable[str]:
        parts = self._whole(node.input[0])
        given = [self._constant(name) if name else None for name in node.input[1:]]
        if not parts or any(value is None or value.size != 1 for value in given):
            return
        first, last, axis, step = [int(v.ravel()[0]) for v in given if v is not None] + [0, 1][len(given) - 2 :]
        size = sum(count for _, count in parts)
        first, last, step = slice(first, last, step).indices(size)
        found = _within(parts, first, last) if axis == 0 and step == 1 and first < last else None
        if found is not None:
            values = (np.array([found[1]], np.int64), np.array([found[1] + last - first], np.int64))
            names = [self._stored_as(f"{node.output[0]}.{place}", value) for place, value in enumerate(values)]
            node.input[0], node.input[1], node.input[2] = found[0], *names
            yield node.output[0]

    def _stored_as(self, base: str, value: NDArray[np.int64]) -> str:
        name = f"{base}.place"
        while name in self._stored or name in self._made:
            name += "_"
        tensor = numpy_helper.from_array(value, name)
        self._graph.initializer.append(tensor)
        self._stored[name] = tensor
        return name


def _within(parts: Sequence[tuple[str, int]], first: int, last: int) -> tuple[str, int] | None:
    """The part that holds the places from `first` to `last`, and where they begin in it."""
    start = 0
    for name, count in parts:
        if start <= first and last <= start + count:
            return name, first - start
        start += count
    return None


def _remove_unread(proto: ModelProto) -> None:
    """Remove what joined the states, and the places that were read, where nobody reads them any more."""
    graph = proto.graph
    while True:
        read = {name for node in graph.node for name in (*node.input, *captured(node))} | {o.name for o in graph.output}
        gone = [node for node in graph.node if _removable(node) and not read.intersection(node.output)]
        if not gone:
            return
        for node in gone:
            graph.node.remove(node)


def _removable(node: NodeProto) -> bool:
    return node.op_type in JOINING and node.domain in ("", "ai.onnx")


def _integer(node: NodeProto, name: str, default: int) -> int:
    return next((int(item.i) for item in node.attribute if item.name == name), default)


def _text(node: NodeProto, name: str) -> str:
    return next((item.s.decode("utf-8", "replace") for item in node.attribute if item.name == name), "")
