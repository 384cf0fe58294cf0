"""What becomes of the constants: each is sliced as its uses need it, and one that they still agree about stays one."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnx_subprune._typing import Array, Int64
from onnx_subprune.graph.channels import Axis, ChannelGraph, Use
from onnx_subprune.graph.contractions.ends import empty_bias
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.sharing import Readers, passing_on, readers_of_constants
from onnx_subprune.graph.surgery.slicing import slice_constant

Version = tuple[tuple[int, ...], bytes] | None
"""What tells two uses of a constant apart: shape and digest of what it becomes; None where it stays as it is."""


@dataclass(frozen=True, slots=True, eq=False)
class Sliced:
    """values: new constants by name. names: by use, the new constant that it reads, where that has a new name.

    replaced: constants that nodes computed, and are values now. stale: constants computed from new ones.
    """

    values: dict[str, Array] = field(default_factory=dict)
    names: dict[Use, str] = field(default_factory=dict)
    replaced: set[str] = field(default_factory=set)
    stale: set[str] = field(default_factory=set)


class Constants:
    """Slices the constants of a model. fresh: makes a new name of a stem."""

    def __init__(
        self,
        network: Network,
        graph: ChannelGraph,
        weights: Mapping[Use, Array],
        kept: Mapping[Axis, Int64],
        fresh: Callable[[str], str],
    ) -> None:
        self._network, self._graph, self._weights = network, graph, weights
        self._kept, self._fresh = kept, fresh
        self._contractions = {contraction.weight: contraction for contraction in graph.contractions}
        biases = ((item.new_bias or empty_bias(item), item) for item in graph.contractions)
        self._biased = {use: item for use, item in biases if use is not None}

    def sliced(self) -> Sliced:
        """Return all that changes."""
        found = Sliced()
        for tensor, readers in readers_of_constants(self._network).items():
            self._slice(tensor, readers, found)
        made: dict[tuple[Use, bytes], str] = {}
        for use in self._weights:
            if not self._name(use):
                value = self._sliced_bias(use)
                key = self._graph.together(self._biased[use])[0].weight, value.tobytes()
                if key not in made:
                    made[key] = self._fresh(f"{use.node}_bias")
                    found.values[made[key]] = value
                found.names[use] = made[key]
        return found

    def _slice(self, tensor: str, readers: Readers, found: Sliced) -> None:
        changed = [use for use in readers.uses if self._changes(use)]
        if not changed:
            return
        if len(readers.uses) == 1 and not readers.others:
            self._put(changed, self._name(changed[0]), found)
            return
        versions: dict[Version, list[Use]] = {}
        for use, root in readers.uses.items():
            whole = root.value(self._value(use)) if use in changed else None
            known = None if whole is None else (whole.shape, hashlib.sha256(whole.tobytes()).digest())
            versions.setdefault(known, []).append(use)
        if len(versions) == 1 and not readers.others and self._alone(tensor):
            found.values[tensor] = readers.uses[changed[0]].value(self._value(changed[0]))
            found.stale.update(passing_on(self._network, tensor))
            if tensor not in self._network.initializers:
                found.replaced.add(tensor)
            return
        for version, users in versions.items():
            for name in dict.fromkeys(self._name(use) for use in users if version is not None):
                self._put([use for use in users if self._name(use) == name], name, found, alone=False)

    def _alone(self, tensor: str) -> bool:
        """True if a value may take the place of what makes the constant."""
        network = self._network
        return tensor in network.initializers or len(network.nodes[network.producer[tensor]].output) == 1

    def _put(self, uses: Sequence[Use], name: str, found: Sliced, *, alone: bool = True) -> None:
        """Give `uses` of the constant `name`, all that there are of it where they are `alone`, what is left of it."""
        new = name if alone and name in self._network.initializers else self._fresh(f"{name}_pruned")
        found.values[new] = self._value(uses[0])
        found.names.update(dict.fromkeys(uses, new))

    def _name(self, use: Use) -> str:
        """The constant in a slot; empty where there is none."""
        inputs = self._network.node(use.node).input
        return inputs[use.slot] if use.slot < len(inputs) else ""

    def _changes(self, use: Use) -> bool:
        name, network = self._name(use), self._network
        rank = len(network.initializers[name].dims) if name in network.initializers else network.array(name).ndim
        if any(Axis(name, axis, use) in self._kept for axis in range(rank)):
            return True
        if use not in self._weights:
            return False
        value, original = self._weights[use], network.array(name)
        return value.shape != original.shape or not np.array_equal(value.astype(original.dtype, copy=False), original)

    def _value(self, use: Use) -> Array:
        name = self._name(use)
        original = self._network.array(name)
        value = self._weights.get(use, original)
        assert value.shape == original.shape, f"{use} has shape {original.shape}, its new value {value.shape}"
        value = value.astype(original.dtype, copy=False)
        return slice_constant(value, use, name, self._contractions.get(use), self._kept)

    def _sliced_bias(self, use: Use) -> Array:
        contraction, value = self._biased[use], self._weights[use]
        dtype = self._network.array(contraction.weight_tensor).dtype
        return slice_constant(value, use, "", contraction, self._kept).astype(dtype)
