"""Q, K and V that one layer makes and a Reshape takes apart on an axis of their own: the model is loaded with a Split of the layer's channels in its place.

    y -> Reshape (.., 3, H, D) -> Transpose -> Split, Gather or Slice of the axis of 3 -> Squeeze
    y -> Split (.., H D each) -> three times: Reshape (.., H, D) -> Transpose

Exactly the same numbers. But in the first form Q, K and V have one shape, and would have to lose the same numbers of each head; in the second one they are
taken apart first. A layer with a head that is dead already stays as it is, so that whole heads go. What shares the axis is known from constants, or follows
from the sizes in front, where those are the layer's own.
"""

from collections.abc import Sequence

from onnx import ModelProto, NodeProto

from onnx_subprune.graph.operators import STANDARD, integer
from onnx_subprune.graph.order import captured
from onnx_subprune.graph.parts import Packed, split
from onnx_subprune.graph.reshaped import Targets, axes_of, complete
from onnx_subprune.graph.sizes import Sizes
from onnx_subprune.graph.stored import Stored

ATTENTION = frozenset(("Attention", "Softmax"))
"""What a model with attention has."""
MOST = 3
"""Parts that are told apart: Q, K and V, or K and V."""
LEAST = 3
"""Axes of a Reshape that takes parts apart: of the parts, and at least one on each side of it."""
LONGEST = 4
"""Changes of layout between the Reshape and where parts are taken."""


def unpacked(proto: ModelProto) -> ModelProto:
    """Return the model with such layers taken apart by a Split; `proto` itself where it has none. It is not changed."""
    operators = {node.op_type for node in proto.graph.node if node.domain in STANDARD}
    if "Reshape" not in operators or not operators & ATTENTION or not complete(proto):
        return proto
    search = _Search(proto)
    found = [plan for node in proto.graph.node if (plan := search.at(node)) is not None]
    return split(proto, found) if found else proto


class _Search:
    """Looks for layers that are packed in this form."""

    def __init__(self, proto: ModelProto) -> None:
        self._known = Stored(proto)
        self._targets = Targets(self._known, Sizes(self._known).of)
        self._captured = frozenset(name for node in proto.graph.node for name in captured(node))

    def at(self, node: NodeProto) -> Packed | None:
        """Return what follows from a Reshape; None if it is another one."""
        if node.op_type != "Reshape" or node.domain not in STANDARD or len(node.input) != 2:
            return None
        sizes = self._targets.sizes(node.input[1])
        layout = None if sizes is None else self._layout(node, len(sizes))
        parts = None if layout is None else self._parts(layout[0], layout[1])
        made = None if parts is None else self._targets.made(node.input[0])
        if sizes is None or layout is None or parts is None or made is None:
            return None
        labels, passed = layout[0], layout[2]
        place, taken, gone = parts
        count = sizes[place]
        if not isinstance(count, int) or not 2 <= count <= MOST or made.width % count:
            return None
        if isinstance(sizes[-1], int) and sizes[-1] > 1 and self._targets.silent(made, sizes[-1]):
            return None  # whole heads can go only as the file has them, and one that is dead goes first
        target = self._targets.without(made, node, place)
        if target is None or any(not 0 <= which < count for _, which in taken):
            return None
        rest = [label - (label > place) for label in labels if label != place]
        if sorted(rest) != list(range(len(sizes) - 1)):
            return None
        return Packed(
            node, count, made.width // count, place, target or None, tuple(rest), taken, (node, *passed, *gone)
        )

    def _layout(self, node: NodeProto, rank: int) -> tuple[list[int], str, list[NodeProto]] | None:
        """The order of the axes of a Reshape behind changes of layout, -1 for one that was put in, the tensor there, and the nodes in between."""
        labels, name, passed = list(range(rank)), node.output[0], list[NodeProto]()
        if rank < LEAST:
            return None
        for _ in range(LONGEST):
            readers = self._readers(name)
            if readers is None or len(readers) != 1 or readers[0].op_type not in ("Transpose", "Squeeze", "Unsqueeze"):
                break
            reader = readers[0]
            if reader.op_type == "Transpose":
                order = next((list(item.ints) for item in reader.attribute if item.name == "perm"), [])
                if sorted(order) != list(range(len(labels))):
                    return None
                labels = [labels[axis] for axis in order]
            else:
                axes = axes_of(self._known, reader)
                if axes is None or len(axes) != 1:
                    return None
                whole = len(labels) + (reader.op_type == "Unsqueeze")
                axis = axes[0] % whole
                if reader.op_type == "Unsqueeze":
                    labels.insert(axis, -1)
                elif labels.pop(axis) != -1:
                    return None
            passed.append(reader)
            name = reader.output[0]
        return labels, name, passed

    def _parts(
        self, labels: Sequence[int], name: str
    ) -> tuple[int, tuple[tuple[str, int], ...], list[NodeProto]] | None:
        """The axis of the parts, what is made of which of them, and the nodes that take them; None if anything else is read."""
        places, made, gone = set[int](), list[tuple[str, int]](), list[NodeProto]()
        for node in self._readers(name) or ():
            found = self._taken(node, labels)
            if found is None:
                return None
            place, own, nodes = found
            places.add(place)
            made += own
            gone += nodes
        if len(places) != 1 or -1 in labels:
            return None
        return places.pop(), tuple(made), gone

    def _taken(
        self, node: NodeProto, labels: Sequence[int]
    ) -> tuple[int, list[tuple[str, int]], list[NodeProto]] | None:
        """The axis that a node takes one part of, or all of them, what is made of which, and the nodes."""
        if node.op_type == "Gather":
            value = self._known.small(node.input[1])
            axis = integer(node, "axis", 0) % len(labels)
            if value is None or value.ndim:
                return None
            return labels[axis], [(node.output[0], int(value))], [node]
        if node.op_type == "Split":
            axis, firsts = integer(node, "axis", 0) % len(labels), range(len(node.output))
            if not self._ones(node):
                return None
        elif node.op_type == "Slice" and len(node.input) >= 4:
            start, end, at = (self._known.number(name) for name in node.input[1:4])
            plain = len(node.input) < 5 or self._known.number(node.input[4]) == 1
            if start is None or end is None or at is None or not plain or start < 0 or end != start + 1:
                return None
            axis, firsts = int(at) % len(labels), range(int(start), int(start) + 1)
        else:
            return None
        made, gone = list[tuple[str, int]](), [node]
        for which, name in zip(firsts, node.output, strict=True):
            readers = self._readers(name) if name else []
            if readers is None:
                return None
            for reader in readers:
                axes = axes_of(self._known, reader) if reader.op_type == "Squeeze" else None
                if axes is None or [item % len(labels) for item in axes] != [axis]:
                    return None
                made.append((reader.output[0], which))
                gone.append(reader)
        return labels[axis], made, gone

    def _ones(self, node: NodeProto) -> bool:
        """True if a Split makes parts of one each, in so far as it says so: it makes as many as the axis is long, or else the model does not run."""
        sizes = next((list(item.ints) for item in node.attribute if item.name == "split"), None)
        if len(node.input) > 1 and node.input[1]:
            value = self._known.small(node.input[1])
            sizes = None if value is None else value.ravel().tolist()
            if sizes is None:
                return False
        return set(sizes) == {1} if sizes is not None else len(node.output) in (2, MOST)

    def _readers(self, name: str) -> list[NodeProto] | None:
        """The nodes of the standard that read a tensor; None where anything else does."""
        readers = self._known.readers(name)
        if name in self._known.outputs | self._captured or any(node.domain not in STANDARD for node in readers):
            return None
        return readers
