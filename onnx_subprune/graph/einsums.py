"""Einsum written as the matrix product that it is, where that has to be reshaped or turned: the model is loaded with that in its place.

    abc,cde->abde     x @ W, where W is (c, d e), and the last axis apart again    (the projections of Keras' attention)
    abcd,cde->abe     x with its last two axes made one, @ W, where W is (c d, e)
    aecd,abcd->acbe   a product of two activations, turned so that the axis they share stands last and second-last
    abc,ab->ac        the same of one row: an axis of size one is put in and taken out
    abcd,ab->abcd     Mul, the second operand with axes of size one for those that it has not
    abc->acb          Transpose

The weight keeps its numbers where they are: only its shape changes, or it is turned as a whole. What does not come to that stays an Einsum, as does what is
a plain product with a matrix along the last axis (see `contractions.einsum`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_subprune.graph.names import fresh
from onnx_subprune.graph.operators import STANDARD
from onnx_subprune.graph.order import captured
from onnx_subprune.graph.stored import Stored

AXES_AS_INPUT = 13
"""The opset since which Squeeze and Unsqueeze have their axes as an input."""


def unfolded(proto: ModelProto) -> ModelProto:
    """Return the model with such products written out; `proto` itself where it has none. It is not changed."""
    if not any(node.op_type == "Einsum" and node.domain in STANDARD for node in proto.graph.node):
        return proto
    writer = _Writer(proto)
    return writer.model() if writer.found else proto


@dataclass(frozen=True, slots=True)
class _Plan:
    """A product with a weight: indices that stay, that are summed over and that are made; shape: of the weight, `turned` where it is made x summed.

    sizes: of what is made.
    """

    before: str
    summed: str
    made: str
    turned: bool
    shape: tuple[int, int]
    sizes: tuple[int, ...]


class _Writer:
    """Goes through the nodes, and writes a product in the place of each Einsum that is one."""

    def __init__(self, proto: ModelProto) -> None:
        self._proto, self._known = proto, Stored(proto)
        self._taken = {name for node in proto.graph.node for name in node.output}
        self._taken |= {tensor.name for tensor in proto.graph.initializer} | {value.name for value in proto.graph.input}
        self._weights = {tensor.name: tensor for tensor in proto.graph.initializer}
        self._captured = frozenset(name for node in proto.graph.node for name in captured(node))
        self._shapes: dict[str, list[int]] = {}
        self._added: list[TensorProto] = []
        self._nodes: list[NodeProto] = []
        self._opset = max((item.version for item in proto.opset_import if item.domain in STANDARD), default=1)
        self.found = False
        for node in proto.graph.node:
            terms = _terms(node) if node.op_type == "Einsum" and node.domain in STANDARD else None
            if terms is None or not self._written(node, *terms):
                self._nodes.append(node)

    def model(self) -> ModelProto:
        """Return the model."""
        found = ModelProto()
        found.CopyFrom(self._proto)
        del found.graph.node[:]
        found.graph.node.extend(self._nodes)
        for tensor in found.graph.initializer:
            if tensor.name in self._shapes:
                tensor.dims[:] = self._shapes[tensor.name]
        found.graph.initializer.extend(self._added)
        changed = {*self._shapes}
        kept = [value for value in found.graph.value_info if value.name not in changed]
        del found.graph.value_info[:]
        found.graph.value_info.extend(kept)
        return found

    def _written(self, node: NodeProto, terms: Sequence[str], result: str) -> bool:
        if len(terms) == 2:
            done = self._weighed(node, terms, result) or self._scaled(node, terms, result)
            done = done or self._multiplied(node, terms, result)
        elif done := terms[0] != result:
            self._turned(node.input[0], terms[0], result, node.output[0])
        self.found = self.found or done
        return done

    def _scaled(self, node: NodeProto, terms: Sequence[str], result: str) -> bool:
        """Write a product, number by number, of two operands, of which one may lack axes."""
        whole = next((place for place in (0, 1) if {*terms[place]} == {*result}), None)
        if whole is None:
            return False
        other = 1 - whole
        order = "".join(letter for letter in result if letter in terms[other])
        part = self._turned(node.input[other], terms[other], order)
        part = self._widened(part, [axis for axis, letter in enumerate(result) if letter not in order])
        sides = [self._turned(node.input[whole], terms[whole], result), part]
        self._nodes.append(helper.make_node("Mul", sides, [node.output[0]], name=node.name))
        return True

    def _weighed(self, node: NodeProto, terms: Sequence[str], result: str) -> bool:
        """Write a product with a weight that has several axes which are summed over, or which are made."""
        slot = next((slot for slot in (1, 0) if self._own(node.input[slot])), None)
        plan = None if slot is None else self._planned(node, node.input[slot])
        if slot is None or plan is None:
            return False
        before, summed, made = plan.before, plan.summed, plan.made
        self._shapes[node.input[slot]] = [*plan.shape]
        matrix = self._turned(node.input[slot], "ab", "ba") if plan.turned else node.input[slot]
        x = self._turned(node.input[1 - slot], terms[1 - slot], before + summed)
        if len(summed) > 1:
            x = self._reshaped(x, [*[0] * len(before), plan.shape[int(plan.turned)]])
        behind = before + made
        name = node.output[0] if len(made) == 1 and behind == result else self._fresh(node.output[0])
        self._nodes.append(helper.make_node("MatMul", [x, matrix], [name], name=node.name))
        if len(made) > 1:
            shape = [*[0] * len(before), *plan.sizes]
            name = self._reshaped(name, shape, node.output[0] if behind == result else None)
        self._turned(name, behind, result, node.output[0])
        return True

    def _planned(self, node: NodeProto, name: str) -> "_Plan | None":
        """How an Einsum multiplies by a weight; None where that takes more than another shape of it."""
        found = _terms(node) if node.op_type == "Einsum" and node.domain in STANDARD else None
        if found is None or len(found[0]) != 2 or node.input[0] == node.input[1]:
            return None
        terms, result = found
        slot = list(node.input).index(name)
        weight, data, dims = terms[slot], terms[1 - slot], self._weights[name].dims
        summed = "".join(letter for letter in weight if letter in data and letter not in result)
        made = "".join(letter for letter in weight if letter not in data)
        before = "".join(letter for letter in result if letter in data and letter not in weight)
        fits = len(dims) == len(weight) == len(summed) + len(made) and min(dims, default=0) > 0
        plain = len(summed) == len(made) == 1 and data == before + summed and result == before + made
        if not fits or weight not in (made + summed, summed + made) or not (before and summed and made) or plain:
            return None
        if {*before, *summed} != {*data} or {*before, *made} != {*result}:
            return None
        sizes = dict(zip(weight, dims, strict=True))
        inner, outer = (prod(sizes[letter] for letter in letters) for letters in (summed, made))
        turned = weight == made + summed
        shape = (outer, inner) if turned else (inner, outer)
        return _Plan(before, summed, made, turned, shape, tuple(sizes[letter] for letter in made))

    def _multiplied(self, node: NodeProto, terms: Sequence[str], result: str) -> bool:
        """Write a product of two activations over one axis, each with one of its own, or none; other axes are those of both."""
        if any(self._known.known(name) for name in node.input):
            return False
        shared = [letter for letter in result if all(letter in term for term in terms)]
        summed = [letter for letter in terms[0] if letter in terms[1] and letter not in result]
        own = [[letter for letter in term if letter not in (*shared, *summed)] for term in terms]
        if len(summed) != 1 or any(len(letters) > 1 for letters in own) or not result:
            return False
        left = int(all(own) and result.index(own[0][0]) > result.index(own[1][0]))
        orders = [*shared, *own[left], *summed], [*shared, *summed, *own[1 - left]]
        sides = [
            self._turned(node.input[place], terms[place], "".join(order))
            for place, order in zip((left, 1 - left), orders, strict=True)
        ]
        rank = len(shared)
        alone = [axis for axis, letters in ((rank, own[left]), (rank + 1, own[1 - left])) if not letters]
        sides = [
            self._widened(side, [axis] if axis in alone else [])
            for side, axis in zip(sides, (rank, rank + 1), strict=True)
        ]
        behind = "".join([*shared, *own[left], *own[1 - left]])
        name = node.output[0] if behind == result and not alone else self._fresh(node.output[0])
        self._nodes.append(helper.make_node("MatMul", sides, [name], name=node.name))
        if alone:
            name = self._squeezed("Squeeze", name, alone, node.output[0] if behind == result else self._fresh(name))
        self._turned(name, behind, result, node.output[0])
        return True

    def _own(self, name: str) -> bool:
        """True for a constant of the file, no input or output of the model, that nothing reads but such products that want the same shape of it."""
        if name not in self._weights or not self._known.known(name) or name in self._known.outputs | self._captured:
            return False
        plans = [self._planned(reader, name) for reader in self._known.readers(name)]
        return None not in plans and len({plan.shape for plan in plans if plan is not None}) == 1

    def _fresh(self, stem: str) -> str:
        return fresh(self._taken, f"{stem}/product")

    def _turned(self, name: str, letters: str, wanted: str, made: str | None = None) -> str:
        if letters == wanted:
            return name
        made = self._fresh(name) if made is None else made
        order = [letters.index(letter) for letter in wanted]
        self._nodes.append(helper.make_node("Transpose", [name], [made], perm=order))
        return made

    def _widened(self, name: str, axes: Sequence[int]) -> str:
        return self._squeezed("Unsqueeze", name, axes, self._fresh(name)) if axes else name

    def _squeezed(self, op: str, name: str, axes: Sequence[int], made: str) -> str:
        if self._opset < AXES_AS_INPUT:
            self._nodes.append(helper.make_node(op, [name], [made], axes=axes))
            return made
        given = self._fresh(name)
        self._added.append(numpy_helper.from_array(np.array(axes, np.int64), given))
        self._nodes.append(helper.make_node(op, [name, given], [made]))
        return made

    def _reshaped(self, name: str, shape: Sequence[int], made: str | None = None) -> str:
        target = self._fresh(name)
        made = self._fresh(name) if made is None else made
        self._added.append(numpy_helper.from_array(np.array(shape, np.int64), target))
        self._nodes.append(helper.make_node("Reshape", [name, target], [made]))
        return made


def _terms(node: NodeProto) -> tuple[list[str], str] | None:
    """The indices of both operands and of the result, all written out and once each; None for anything else."""
    if len(node.output) != 1 or not all((*node.input, *node.output)):
        return None  # no model that runs
    text = next((item.s for item in node.attribute if item.name == "equation"), b"")
    equation = text.decode(errors="replace").replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    once = all(len(set(term)) == len(term) and (not term or term.isalpha()) for term in (*terms, result))
    if not arrow or not once or len(terms) != len(node.input) or len(terms) > 2:
        return None
    alone = {*terms[0]} ^ {*terms[-1]} if len(terms) == 2 else {*terms[0]}
    return (terms, result) if alone <= {*result} <= {*"".join(terms)} else None
