"""What a Reshape makes of the channels of a dense layer, known before a model is loaded: the numbers of its target, and whose axes they are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from onnx import ModelProto, NodeProto

from onnx_subprune.graph.operators import STANDARD, integer
from onnx_subprune.graph.stored import Size, Stored


@dataclass(frozen=True, slots=True)
class Made:
    """A dense layer's output `width` wide. alike: tensors whose axes but for the last are those of the output, of which there are `leading`; 0: unknown.

    weight: a matrix, `turned` where it has a row for each channel. biases: what is added.
    """

    width: int
    alike: frozenset[str]
    leading: int
    weight: str
    turned: bool
    biases: tuple[str, ...]


LARGEST = 1 << 26
"""Numbers of a weight that is looked at."""
INPUTS = {
    **dict.fromkeys(("Cast", "Identity", "Shape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"), 1),
    **dict.fromkeys(("Add", "Div", "Gather", "Gemm", "MatMul", "Mod", "Mul", "Reshape", "Sub"), 2),
    "Range": 3,
}
"""How many inputs these operators have at least."""


class Targets:
    """Looks at the targets of Reshape in a model. sizes: the numbers of a target, None where their count is not known."""

    def __init__(self, known: Stored, sizes: Callable[[str], list[Size] | None]) -> None:
        self._known, self.sizes = known, sizes

    def made(self, name: str) -> Made | None:
        """Return what a dense layer makes, with or without a bias."""
        alike, biases, width = [name], list[str](), 0
        node = self._known.producer(name)
        if node is not None and node.op_type == "Add":
            known = [self._known.known(item) for item in node.input]
            if sum(known) != 1 or len(self._known.shape(node.input[known.index(True)])) != 1:
                return None
            biases.append(node.input[known.index(True)])
            width = self._known.shape(biases[0])[0]
            name = node.input[known.index(False)]
            alike.append(name)
            node = self._known.producer(name)
        if node is None or node.op_type not in ("MatMul", "Gemm"):
            return None
        turned = node.op_type == "Gemm" and bool(integer(node, "transB", 0))
        behind = self._known.producer(node.input[1])
        weight = node.input[1]
        if behind is not None and behind.op_type == "Transpose":
            weight, turned = behind.input[0], not turned
        if not self._known.known(weight) or len(self._known.shape(weight)) != 2:
            return None
        own = self._known.shape(weight)[0 if turned else 1]
        if width not in (0, 1, own):
            return None
        plain = node.op_type == "MatMul" or not integer(node, "transA", 0)
        leading = 1 if node.op_type == "Gemm" else max(self._known.rank(name) - 1, 0)
        biases += [item for item in node.input[2:] if item]
        return Made(
            own, frozenset([*alike, *([node.input[0]] if plain else [])]), leading, weight, turned, tuple(biases)
        )

    def silent(self, made: Made, size: int) -> bool:
        """True if some run of `size` channels, from the first on, is always 0: a head that is dead."""
        values = [self._known.small(name, LARGEST) for name in (made.weight, *made.biases)]
        if made.width % size or any(value is None for value in values):
            return False
        weight, *biases = (np.asarray(value) for value in values)
        live = weight.any(axis=1 if made.turned else 0)
        if any(bias.shape[-1:] not in ((), (1,), live.shape) for bias in biases):
            return True  # no model that runs has such a one
        for bias in biases:
            live = live | (bias.reshape(-1, bias.shape[-1] if bias.ndim else 1) != 0).any(axis=0)
        return not bool(live.reshape(-1, size).any(axis=1).all())

    def filled(self, node: NodeProto) -> list[Size] | None:
        """Return what a Reshape makes the sizes of its output, with the number that -1 stands for where it takes the channels of a layer apart."""
        sizes = self.sizes(node.input[1])
        if sizes is None or sizes.count(-1) != 1:
            return sizes
        place, made = sizes.index(-1), self.made(node.input[0])
        numbers = [] if made is None else [size for size in sizes[made.leading :] if isinstance(size, int) and size > 0]
        if (
            made is None
            or len(numbers) != len(sizes) - made.leading - 1
            or not self._own(made, node, sizes[: made.leading])
        ):
            return sizes
        return [*sizes[:place], made.width // prod(numbers), *sizes[place + 1 :]]

    def _own(self, made: Made, node: NodeProto, ahead: Sequence[Size]) -> bool:
        """True if the first sizes of a target are those of all axes of a layer but the last."""
        copies = not integer(node, "allowzero", 0)
        return len(ahead) == made.leading and all(
            (size == 0 and copies) or (isinstance(size, tuple) and size[0] in made.alike and size[1] == axis)
            for axis, size in enumerate(ahead)
        )

    def without(self, made: Made, node: NodeProto, place: int) -> tuple[int, ...] | None:
        """Return the target of a Reshape for one part, empty where it has to be looked up; None if it is not sure that parts are whole channels.

        place: of the axis of the parts.
        """
        sizes = self.sizes(node.input[1]) or []
        ahead, behind, count = sizes[:place], sizes[place + 1 :], sizes[place]
        assert isinstance(count, int), "it has been looked at"
        each, copies = made.width // count, not integer(node, "allowzero", 0)
        own = self._own(made, node, ahead)
        numbers = [size if isinstance(size, int) and size > 0 else 0 for size in behind]
        open_ = [axis for axis, size in enumerate(numbers) if not size]
        rest = prod(size for size in numbers if size)
        if own and len(open_) == 1 and each % rest == 0:
            numbers[open_[0]] = each // rest
        elif open_ or rest != each:
            return None
        if own:
            return (*[0] * len(ahead), *numbers)
        fixed = [size if isinstance(size, int) and (size > 0 or (size == 0 and copies)) else -1 for size in ahead]
        return (*fixed, *numbers) if fixed.count(-1) < 2 else ()


def complete(proto: ModelProto) -> bool:
    """Return False if a node lacks inputs that it cannot be without: such a model does not run."""
    nodes = (node for node in proto.graph.node if node.domain in STANDARD)
    return all(len(node.input) >= INPUTS.get(node.op_type, 0) for node in nodes)


def axes_of(known: Stored, node: NodeProto) -> list[int] | None:
    """Return the axes that a node is given, as an attribute or as a constant; None where it has none."""
    axes = next((list(item.ints) for item in node.attribute if item.name == "axes"), None)
    if len(node.input) > 1 and node.input[1]:
        value = known.small(node.input[1])
        axes = None if value is None else value.ravel().tolist()
    return axes
