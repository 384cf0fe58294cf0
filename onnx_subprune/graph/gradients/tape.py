"""What rules of gradients write on: nodes behind those of a model, whose tensors all have sizes that are known."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnx_subprune._typing import Array
from onnx_subprune.errors import SubpruneError
from onnx_subprune.graph.operators import attribute

Shape = tuple[int, ...]
PREFIX = "gradients/"
"""What the names of all new tensors begin with."""


class NoGradientError(SubpruneError):
    """An operator between a weight and the loss has no gradient here; the text says what is in the way, `node` which, by its outputs."""

    def __init__(self, text: str, node: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.node = tuple(node)


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a tensor: its shape in every run, its type, and its value where that is a small integer tensor that no data change."""

    shape: Shape
    dtype: np.dtype[np.generic]
    value: Array | None = None


class Tape:
    """The nodes and constants that are added to a model, in order.

    seen: all tensors of the model. opset: its version of the standard operators. prefix: of new names; nothing of the model may have one that begins so.
    """

    def __init__(self, seen: Mapping[str, Seen], opset: int, prefix: str = PREFIX) -> None:
        self.seen, self.opset, self.prefix = dict(seen), opset, prefix
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._known: dict[tuple[str, Shape, bytes], str] = {}

    def shape(self, tensor: str) -> Shape:
        """Return the shape of a tensor of the model."""
        if tensor not in self.seen:
            raise NoGradientError(f"the sizes of {tensor!r} are not known")
        return self.seen[tensor].shape

    def integers(self, tensor: str) -> list[int]:
        """Return the numbers of a small integer tensor; NoGradientError where they depend on the data."""
        found = self.seen.get(tensor)
        if found is None or found.value is None:
            raise NoGradientError(f"{tensor!r} depends on the data")
        return [int(item) for item in found.value.reshape(-1)]

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output; return that."""
        return self.several(kind, inputs, 1, **attributes)[0]

    def several(self, kind: str, inputs: Sequence[str], count: int, **attributes: Any) -> list[str]:
        """Add a node of so many outputs; return them."""
        name = f"{self.prefix}{len(self.nodes)}"
        outputs = [name, *(f"{name} {place}" for place in range(1, count))]
        self.nodes.append(helper.make_node(kind, list(inputs), outputs, name=name, **attributes))
        return outputs

    def constant(self, value: Array) -> str:
        """Return the name of a constant; the same one for the same value."""
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._known:
            self._known[key] = f"{self.prefix}constant {len(self._known)}"
            self.constants.append(
                numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), self._known[key])
            )
        return self._known[key]

    def number(self, value: float) -> str:
        """Return the name of a scalar."""
        return self.constant(np.array(value, np.float32))

    def indices(self, values: Iterable[int]) -> str:
        """Return the name of a vector of integers."""
        return self.constant(np.array(list(values), np.int64))

    def reshape(self, tensor: str, shape: Sequence[int]) -> str:
        """Return the same numbers in another shape."""
        return self.op("Reshape", tensor, self.indices(shape))

    def transpose(self, tensor: str, order: Sequence[int]) -> str:
        """Return the tensor with its axes in this order."""
        return tensor if list(order) == sorted(order) else self.op("Transpose", tensor, perm=list(order))

    def total(self, tensor: str, axes: Sequence[int], *, keep: bool = False) -> str:
        """Return sums over axes."""
        if not axes:
            return tensor
        if self.opset >= 13:
            return self.op("ReduceSum", tensor, self.indices(axes), keepdims=int(keep))
        return self.op("ReduceSum", tensor, axes=list(axes), keepdims=int(keep))

    def fitted(self, tensor: str, have: Shape, want: Shape) -> str:
        """Return the gradient of what was broadcast from `want` to `have`: sums over the axes that are copies."""
        if have == want:
            return tensor
        lead = len(have) - len(want)
        axes = [i for i in range(len(have)) if i < lead or (want[i - lead] == 1 and have[i] != 1)]
        return self.reshape(self.total(tensor, axes), want)

    def padded(self, tensor: str, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> str:
        """Return the tensor with `value` around it."""
        if not any(before) and not any(after):
            return tensor
        pads = [*before, *after]
        if self.opset >= 11:
            return self.op("Pad", tensor, self.indices(pads), self.number(value))
        return self.op("Pad", tensor, pads=pads, value=value)

    def cut(
        self, tensor: str, axes: Sequence[int], starts: Sequence[int], stops: Sequence[int], steps: Sequence[int] = ()
    ) -> str:
        """Return what lies from `starts` to before `stops`, every `steps` (1): counted from the front."""
        if all(step == 1 for step in steps):
            steps = ()
        if self.opset >= 10:
            tail = (self.indices(steps),) if steps else ()
            return self.op("Slice", tensor, self.indices(starts), self.indices(stops), self.indices(axes), *tail)
        if steps:
            raise NoGradientError(f"opset {self.opset} has no steps; convert the model to 11 or newer")
        return self.op("Slice", tensor, starts=list(starts), ends=list(stops), axes=list(axes))

    def spread(self, tensor: str, shape: Shape, axis: int, place: tuple[int, int, int]) -> tuple[str, Shape]:
        """Return zeros of the size place[2] along `axis` with the tensor at place[0] and every place[1] from there, and its shape."""
        start, step, size = place
        if step > 1:
            rank = len(shape) + 1
            tensor = self.reshape(tensor, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
            after = [0] * rank
            after[axis + 1] = step - 1
            tensor = self.padded(tensor, [0] * rank, after)
            shape = (*shape[:axis], shape[axis] * step, *shape[axis + 1 :])
            tensor = self.reshape(tensor, shape)
        over = start + shape[axis] - size
        if over > 0:  # zeros behind the last one
            tensor = self.cut(tensor, [axis], [0], [shape[axis] - over])
            shape = (*shape[:axis], shape[axis] - over, *shape[axis + 1 :])
        before, after = [0] * len(shape), [0] * len(shape)
        before[axis], after[axis] = start, size - start - shape[axis]
        return self.padded(tensor, before, after), (*shape[:axis], size, *shape[axis + 1 :])

    def mask(self, condition: str) -> str:
        """Return 1 where a condition holds, else 0."""
        return self.op("Cast", condition, to=TensorProto.FLOAT)

    def softmax(self, tensor: str, shape: Shape, *, log: bool = False) -> str:
        """Return the softmax over the last axis."""
        kind = "LogSoftmax" if log else "Softmax"
        if self.opset >= 13:
            return self.op(kind, tensor, axis=-1)
        flat = self.op(kind, self.reshape(tensor, (prod(shape[:-1]), shape[-1])), axis=1)
        return self.reshape(flat, shape)


@dataclass(frozen=True, slots=True)
class Call:
    """A node whose gradient is asked for.

    grads: gradients of its outputs, None for those that do not reach the loss. asked: by input, whether its gradient is wanted.
    """

    tape: Tape
    node: NodeProto
    grads: tuple[str | None, ...]
    asked: tuple[bool, ...]

    @property
    def grad(self) -> str:
        """The gradient of the first output; NoGradientError where it is another one that reaches the loss."""
        if self.grads[0] is None or any(item is not None for item in self.grads[1:]):
            raise NoGradientError("another output than the first one is read")
        return self.grads[0]

    @property
    def shape(self) -> Shape:
        """The shape of the first output."""
        return self.tape.shape(self.node.output[0])

    def wants(self, slot: int) -> bool:
        """True if the gradient of an input is wanted."""
        return slot < len(self.asked) and self.asked[slot]

    def has(self, slot: int) -> bool:
        """True if an input is given."""
        return slot < len(self.node.input) and self.node.input[slot] != ""

    def integer(self, name: str, default: int) -> int:
        """Return an attribute."""
        found = attribute(self.node, name, default)
        assert isinstance(found, int)
        return found

    def float(self, name: str, default: float) -> float:
        """Return an attribute."""
        found = attribute(self.node, name, default)
        assert isinstance(found, (int, float))
        return float(found)

    def integers(self, name: str, slot: int) -> list[int] | None:
        """Return an attribute, or the input that later opsets have in its place; None where there is neither."""
        found = attribute(self.node, name)
        if found is not None:
            assert isinstance(found, (list, tuple))
            return [int(item) for item in found]
        return self.tape.integers(self.node.input[slot]) if self.has(slot) else None

    def text(self, name: str, default: str) -> str:
        """Return an attribute."""
        found = attribute(self.node, name, default)
        return found.decode() if isinstance(found, bytes) else str(found)
