"""Loops that are recurrent layers, written as LSTM, GRU or RNN.

    Loop(steps, true, 0, h, c, ...)   body: x = Gather(data, step); h, c = cell(x, h, c); step + 1;  puts out h at every step

Keras' GRU and SimpleRNN, and its LSTM with dropout, come like this. It is the same function where the body does for each step of `data`, from the first to
the last, what the operator does; what only looks like it stays a Loop: masks, other cells, states that are computed otherwise.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_subprune._typing import Array
from onnx_subprune.errors import ModelError
from onnx_subprune.graph.loop_bodies import Body
from onnx_subprune.graph.loop_cells import Cell, State, cell_of
from onnx_subprune.graph.loop_steps import ENDLESS, Steps, body_ends
from onnx_subprune.graph.names import fresh
from onnx_subprune.graph.operators import NO_CONSTANTS, STANDARD, attribute, integer
from onnx_subprune.graph.order import captured, rewritten
from onnx_subprune.graph.sizes import Sizes
from onnx_subprune.graph.stored import Stored

Compute = Callable[[ModelProto, Sequence[str]], dict[str, Array]]
"""Returns tensors of a model, by name; ModelError where it does not run."""
AXES_AS_INPUT = 13
"""The opset since which Squeeze and Unsqueeze have their axes as an input."""
GIVEN = 2
"""Inputs of a Loop, and of its body, before the values that it carries."""
MATRIX, RANK, MOST = 2, 3, 2
"""Axes of a weight, and of the data of all steps; states of a layer at most."""


def recurrent(proto: ModelProto, compute: Compute) -> ModelProto:
    """Return the model with such Loops as operators; `proto` itself where it has none. It is not changed. compute: constants of a model without inputs."""
    while loops_of(proto.graph):  # what one makes is known when it is an operator
        writer = _Writer(proto, compute)
        if not writer.constants:
            break
        proto = rewritten(proto, writer.nodes, writer.constants)
    return proto


def loops_of(graph: GraphProto) -> list[NodeProto]:
    """Return the Loops of a graph."""
    return [node for node in graph.node if _is_loop(node)]


def _is_loop(node: NodeProto) -> bool:
    return node.op_type == "Loop" and node.domain in STANDARD and isinstance(attribute(node, "body"), GraphProto)


class _Writer:
    """Goes through the nodes, and writes an operator in the place of each Loop that is one."""

    def __init__(self, proto: ModelProto, compute: Compute) -> None:
        self._proto, self._known = proto, Stored(proto)
        self._taken = {name for node in proto.graph.node for name in (*node.output, *captured(node))}
        self._taken |= {tensor.name for tensor in proto.graph.initializer} | {value.name for value in proto.graph.input}
        opset = max((item.version for item in proto.opset_import if item.domain in STANDARD), default=1)
        self._axes_as_input = opset >= AXES_AS_INPUT
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._known_constants: dict[tuple[tuple[int, ...], bytes], str] = {}
        read = {name for node in proto.graph.node for name in (*node.input, *captured(node))} | self._known.outputs
        for node in proto.graph.node:
            loop = _Loop(proto, self._known, node, compute) if _is_loop(node) else None
            cell = None if loop is None else loop.cell(read)
            if loop is None or cell is None:
                self.nodes.append(node)
            else:
                self._write(loop, cell)

    def _write(self, loop: "_Loop", cell: Cell) -> None:
        name = loop.node.name or loop.node.output[0]
        given = [loop.sequence]
        for part, value in (("W", cell.weight), ("R", cell.recurrence), ("B", cell.bias)):
            given.append(self._constant(f"{name}/{part}", value[None].astype(np.float32)))
        states = [loop.begin[state.before] for state in cell.states]
        given += ["", *(self._moved("Unsqueeze", item, 0, f"{item}/first") if item else "" for item in states)]
        made = [fresh(self._taken, f"{name}/{part}") for part in ("Y", "Y_h", "Y_c")[: 1 + len(states)]]
        self.nodes.append(helper.make_node(cell.operator, given, made, name=loop.node.name, **cell.attributes))
        for output, (which, steps) in loop.wanted.items():
            place = 0 if steps else 1 + [state.before for state in cell.states].index(which)
            self._moved("Squeeze", made[place], 1 if steps else 0, "", output)

    def _moved(self, operator: str, source: str, axis: int, stem: str, made: str = "") -> str:
        """Put in an axis of size one, or take it out; return what is made, of a new name like `stem` where it has none."""
        made = made or fresh(self._taken, stem)
        if self._axes_as_input:
            axes = self._constant(f"{made}/axes", np.array([axis], np.int64))
            self.nodes.append(helper.make_node(operator, [source, axes], [made]))
        else:
            self.nodes.append(helper.make_node(operator, [source], [made], axes=[axis]))
        return made

    def _constant(self, stem: str, value: Array) -> str:
        """The name of a constant; of layers that share their weights, one for all."""
        key = (value.shape, value.tobytes())
        if key not in self._known_constants:
            self._known_constants[key] = fresh(self._taken, stem)
            self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), self._known_constants[key]))
        return self._known_constants[key]


class _Loop:
    """One Loop. sequence: the tensor whose first axis is the steps; begin: what the states are before the first, by their names in the body.

    Of a state that begins with zeros it may be empty. wanted: outputs that are read: which state it is, and whether at all steps.
    """

    def __init__(self, proto: ModelProto, known: Stored, node: NodeProto, compute: Compute) -> None:
        self._proto, self._known, self.node, self._compute = proto, known, node, compute
        body = attribute(node, "body")
        assert isinstance(body, GraphProto), "it is a Loop"
        self._graph = body
        self._given = [value.name for value in body.input]
        self._made = [value.name for value in body.output]
        self._outside = dict(zip(self._given[GIVEN:], node.input[GIVEN:], strict=False))
        self.sequence = ""
        self.begin: dict[str, str] = {}
        self.wanted: dict[str, tuple[str, bool]] = {}

    def cell(self, read: set[str]) -> Cell | None:
        """Return the layer that this is; None for another. read: the tensors of the model that anything reads."""
        carried = len(self._outside)
        if not carried or len(self.node.input) != GIVEN + carried or len(self._given) != GIVEN + carried:
            return None
        values = self._values() if len(self._made) > carried else None
        if values is None:
            return None
        body = Body.of(self._graph, values)
        after = {name: body.source(made) for name, made in zip(self._given[GIVEN:], self._made[1:], strict=False)}
        counters = {name: made for name, made in after.items() if self._counts(body, name, made)}
        states = [State(name, made) for name, made in after.items() if made != name and name not in counters]
        for data, sequence in self._data(body, {*counters, self._given[0]}):
            steps = Steps(self._known, Sizes(self._known).of, sequence, self._outside)
            trips = self.node.input[0]
            bound = body_ends(body, steps, self._made[0], counters, self._given[:GIVEN])
            if (
                bound is None
                or not steps.starts(self.node.input[1])
                or not (steps.are(trips) or (bound and steps.endless(trips)))
            ):
                continue
            found = cell_of(body, data, states) if 1 <= len(states) <= MOST else None
            if found is not None and self._named(body, found, read) and self._begun(sequence):
                self.sequence = sequence
                return found
        return None

    def _values(self) -> dict[str, Array] | None:
        """The constants of the body, its own, those that are handed on from step to step, and what is computed of them; None where some lie in other files."""
        handed = {name for name, made in zip(self._given[GIVEN:], self._made[1:], strict=False) if name == made}
        names = {name: self._outside[name] for name in handed} | {name: name for name in captured(self.node)}
        outer = {
            inner: self._known.small(name, most=ENDLESS) for inner, name in names.items() if self._known.known(name)
        }
        if any(value is None for value in outer.values()) or any(map(external, self._graph.initializer)):
            return None
        found = {inner: value for inner, value in outer.items() if value is not None}
        found |= {tensor.name: numpy_helper.to_array(tensor) for tensor in self._graph.initializer}
        if any(value.dtype.kind == "f" and value.dtype != np.float32 for value in found.values()):
            return None  # onnxruntime has the operators for float32
        nodes, fixed = list[NodeProto](), {*found, ""}
        for node in self._graph.node:
            drawn = node.op_type.startswith(NO_CONSTANTS) or node.domain not in STANDARD or captured(node)
            if not drawn and fixed.issuperset(node.input):
                nodes.append(node)
                fixed.update(node.output)
        if not nodes:
            return found
        part = GraphProto(name="constants", node=nodes)
        part.initializer.extend(numpy_helper.from_array(value, name) for name, value in found.items())
        model = helper.make_model(part, opset_imports=self._proto.opset_import, ir_version=self._proto.ir_version)
        with suppress(ModelError):
            return found | self._compute(model, [name for node in nodes for name in node.output if name])
        return None

    def _counts(self, body: Body, name: str, made: str) -> bool:
        """True if a carried value is the number of the step."""
        first = self._outside[name]
        added = [other for one, other in body.orders(made, "Add") if body.source(one) == name]
        return (
            bool(added)
            and body.number(added[0]) == 1.0
            and self._known.number(first) == 0.0
            and not self._known.shape(first)
        )

    def _data(self, body: Body, counters: Collection[str]) -> Iterator[tuple[str, str]]:
        """Yield what a body takes of the step, (samples, features), and what it takes that of, outside of it."""
        for name, node in body.made.items():
            if node.op_type == "Gather" and not integer(node, "axis", 0) and body.source(node.input[1]) in counters:
                source = body.source(node.input[0])
                handed = source in self._outside and self._made[1 + self._given[GIVEN:].index(source)] == source
                if source not in body.made and (handed or source not in self._given):
                    sequence = self._outside.get(source, source)
                    if self._known.rank(sequence) == RANK:
                        yield name, sequence

    def _named(self, body: Body, cell: Cell, read: Collection[str]) -> bool:
        """True if what is read of the Loop is states; they are `wanted` from here on."""
        states, hidden = [state.before for state in cell.states], cell.states[0]
        self.wanted, self.begin = {}, {name: self._outside[name] for name in states}
        for place, name in enumerate(self.node.output):
            if name not in read or not name:
                continue
            steps = place >= len(self._outside)
            inside = self._made[1 + place] if steps else self._given[GIVEN + place]
            if steps and body.source(inside) == body.source(hidden.after):
                self.wanted[name] = hidden.before, True
            elif not steps and inside in states:
                self.wanted[name] = inside, False
            else:
                return False
        return bool(self.wanted)

    def _begun(self, sequence: str) -> bool:
        """True if the states begin with as many samples as there are; zeros of another number are left out, which is the same."""
        samples = (self._known.sizes(sequence) or (None,) * RANK)[1]
        for state, name in self.begin.items():
            sizes = self._known.shape(name) if self._known.known(name) else self._known.sizes(name)
            if sizes is not None and (len(sizes) != MATRIX or (sizes[0] is not None and sizes[0] != samples)):
                value = self._known.small(name, most=ENDLESS) if self._known.known(name) else None
                if value is None or value.any():
                    return False
                self.begin[state] = ""
        return True


def external(tensor: TensorProto) -> bool:
    """Return whether the numbers of a tensor lie in another file."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)
