"""Operators that are not defined everywhere, behind a layer: new weights may leave their domain where the old ones did not.

A filter bank's power is positive; refitted, it may be below zero somewhere, and its logarithm is no number. Then the layer keeps its old weights.
Where those leave the domain too, with fewer channels, the groups that it reads may not be that narrow (`DomainError`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from onnx import NodeProto

from onnx_subprune._typing import Array, Weights
from onnx_subprune.calibration.files.executor import Recorded
from onnx_subprune.calibration.streaming.questions import Greatest
from onnx_subprune.calibration.streaming.request import Request
from onnx_subprune.errors import ModelError
from onnx_subprune.graph.channels import ChannelGroup, Contraction, Use
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import key_of
from onnx_subprune.reconstruction.fit import Fit
from onnx_subprune.reconstruction.layer import Layer, farther
from onnx_subprune.reconstruction.progress import State

PARTIAL = frozenset(("Acos", "Acosh", "Asin", "Atanh", "Log", "Pow", "Reciprocal", "Sqrt"))
"""Operators that give no finite number for some inputs; a Div does by what it divides by."""
AVERAGES = frozenset(
    ("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReduceMax", "ReduceMean", "ReduceSum")
)
"""What is behind these is as positive as what they take, in normalisations that are spelled out."""
SIZES = frozenset(("Shape", "Size"))
"""What is behind these does not hang on weights: exporters take the root of the size of a head."""
NORMS = frozenset(("ReduceL1", "ReduceL2", "ReduceSumSquare"))
"""What is behind these is positive whatever they take."""
POSITIVE = frozenset(("Abs", "Exp", "Sigmoid", "Softplus"))
"""Operators that put out nothing below zero, beside squares."""


MARGIN = 1.0
"""Weights that are farther from the old ones by this share of the step have to stay within the domain, too: other data come closer to its edge."""


class DomainError(ModelError):
    """With fewer channels of `groups` an operator behind a layer is no finite number, whatever the weights. reason: that, for the report."""

    def __init__(self, text: str, groups: Sequence[str], reason: str) -> None:
        super().__init__(text)
        self.groups, self.reason = tuple(groups), reason


class Domain:
    """What lies between a layer and the contractions behind it; the layer and its producer are as they were when this was made."""

    def __init__(self, state: State, layer: Layer) -> None:
        self._state, self._layer = state, layer
        self._alone = not state.task.formulation.follows
        followed = not layer.contraction.recurs and not isinstance(state.task.executor, Recorded)  # which runs nothing
        ends = partial_behind(state.task.network, layer.contraction, state.order) if followed else {}
        self._ends = {tensor: op for tensor, op in ends.items() if self._finite(tensor)}  # others never were numbers
        self._before = self._constants() if self._ends else {}
        self._original = dict(self._before) if self._alone else {}
        self._rests = bool(self._ends) and self._at_rest() is None

    def left(self, found: Fit | None = None) -> str | None:
        """Return the operator that puts out something else than finite numbers now, if there is one.

        found: what the layer has been given; then a longer step from its old weights has to be finite, too (`MARGIN`).
        """
        if not self._ends:
            return None
        for use, value in self._original.items():  # the model that layers are fitted in stays the original
            self._state.models.override(use, self._state.now(use, value))
        left = self._now()
        if left is None and found is not None and found.refitted:
            left = self._beyond(found) or (self._at_rest() if self._rests else None)
        for use, value in self._original.items():
            self._state.models.override(use, value)
        return left

    def _beyond(self, found: Fit) -> str | None:
        """The same of weights that are farther from the old ones than `found`."""
        layer, network = self._layer, self._state.task.network
        old = {**self._before, **layer.constants(replace(found, weights=self._sliced(), bias=None), network)}
        return self._with({use: farther(value, old[use], MARGIN) for use, value in self._own().items()})

    def _at_rest(self) -> str | None:
        """The same where the layer reads nothing but zeros, as of silence: what it puts out then is its bias."""
        weight = self._layer.contraction.weight
        return self._with({weight: np.zeros_like(self._own()[weight])})

    def _own(self) -> dict[Use, Array]:
        """The layer's weight and bias, as far as it has them."""
        layer = self._layer
        uses = [layer.contraction.weight, *([layer.bias.use] if layer.bias is not None else [])]
        return {use: value for use in uses if (value := self._state.now(use, np.zeros(0))).size}

    def _with(self, values: Mapping[Use, Array]) -> str | None:
        """The operator that puts out something else than finite numbers with these constants of the layer."""
        now = {use: value for use, value in self._own().items() if use in values}
        for use, value in values.items():
            self._state.models.override(use, value)
        left = self._now()
        for use, value in now.items():
            self._state.models.override(use, value)
        return left

    def _sliced(self) -> Weights:
        """The old weights, without those of columns that are dropped."""
        prior = self._layer.prior
        return np.where(self._state.alive(self._layer).reshape(prior.shape[:2])[:, :, None], prior, 0.0)

    def _now(self) -> str | None:
        return next((op for tensor, op in self._ends.items() if not self._finite(tensor)), None)

    def _finite(self, tensor: str) -> bool:
        layer = self._layer
        request = Request(weight=layer.contraction.weight, kernel=layer.kernel, input=tensor, question=Greatest())
        with np.errstate(over="ignore", invalid="ignore"):
            peaks = self._state.whole(request).energy
        return bool(np.isfinite(peaks).all())

    def back(self) -> None:
        """Give the layer and its producer the constants that they had."""
        state, contraction = self._state, self._layer.contraction
        for use, value in self._before.items():
            state.weights[use] = value
            state.models.override(use, value)
        state.models.advance(state.pairing.anchor(contraction), [contraction.input.tensor])

    def kept(self, found: Fit, left: str, groups: Sequence[ChannelGroup]) -> Fit:
        """Return the old weights, sliced, which the pruned model has then; DomainError if with these, too, something is no finite number.

        found: of other weights, with which `left` is none. groups: those that get narrower.
        """
        self.back()
        layer, error = self._layer, found.plain_error
        kept = replace(
            found, weights=self._sliced(), bias=None, refitted=False, fitted_error=error, heldout_error=error
        )
        self._state.take(layer, kept)
        if self.left() is not None:
            raise self._too_narrow(left, groups)
        return kept

    def _too_narrow(self, left: str, groups: Sequence[ChannelGroup]) -> DomainError:
        """What is wrong with the widths of the groups that the layer reads, or, if there are none, of those that are chosen before it."""
        node, weight = self._layer.node, self._layer.contraction.weight
        mine = [group.name for group in groups if any(consumer.weight == weight for consumer in group.consumers)]
        names = mine or [group.name for group in groups if group.name in self._state.choices]
        return DomainError(
            f"{node}: with fewer channels {left} behind it puts out something else than finite numbers, whatever the weights: keep more of them, "
            f"or all (--exclude {' '.join(names) or node})",
            names,
            f"with fewer {left} behind {node} puts out something else than finite numbers",
        )

    def _constants(self) -> Mapping[Use, Array]:
        state, layers = self._state, [self._layer]
        chain = None if self._alone else state.pairing.chain(self._layer.contraction)
        if chain is not None:
            layers.append(state.layer(chain.producer))
        values: dict[Use, Array] = {}
        for layer in layers:
            weight = layer.contraction.weight
            values[weight] = state.now(weight, np.zeros(0))
            if layer.bias is not None:
                values[layer.bias.use] = state.now(layer.bias.use, np.zeros(len(layer.bias.scale), layer.bias.dtype))
        return values


def partial_behind(network: Network, contraction: Contraction, contractions: list[Contraction]) -> dict[str, str]:
    """Return the outputs of operators that are not defined everywhere, and these, between a contraction and those behind it."""
    walls = {network.position[item.node] for item in contractions}
    pending, seen, found = [contraction.output.tensor], set[int](), dict[str, str]()
    while pending:
        for index, slot in network.readers.get(pending.pop(), ()):
            node = network.nodes[index]
            op = key_of(node)
            if index in seen or index in walls or slot < 0 or op in NORMS or op in SIZES:
                continue
            if op in AVERAGES and (node.input[0] in network.spelled.weighed or _never_negative(network, node.input[0])):
                continue  # the variance of a normalisation is none, too
            if (op in PARTIAL and not _is_power(network, node)) or (op == "Div" and slot == 1):
                found[node.output[0]] = op
            seen.add(index)
            pending += [name for name in node.output if name]
    return found


def _never_negative(network: Network, tensor: str) -> bool:
    """True if what makes a tensor is a square or the like."""
    while tensor in network.producer:
        node = network.nodes[network.producer[tensor]]
        op = key_of(node)
        if op not in ("Cast", "Identity"):
            square = op == "Mul" and node.input[0] == node.input[1]
            return op in POSITIVE or square or (op == "Pow" and _is_power(network, node, 2))
        tensor = node.input[0]
    return False


def _is_power(network: Network, node: NodeProto, multiple: int = 1) -> bool:
    """True if the node takes a constant power with a natural exponent, a multiple of `multiple`, which is defined everywhere."""
    if key_of(node) != "Pow" or node.input[1] not in network.initializers:
        return False
    exponents = network.array(node.input[1]).astype(np.float64)
    return bool((exponents >= 0).all() and (exponents % multiple == 0).all())
