"""What a contraction is asked to put out: the tensor of the original that it aims at, or what its reader sends back.

What is left of channel groups in a model that still runs, and the original that it is compared with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from onnx_subprune._typing import Array, Float32, Float64, Int64
from onnx_subprune.calibration.streaming.product import Product
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.network import Network

Left = tuple[int, NDArray[np.int64]]
"""An axis, and the positions on it that are left."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cut:
    """Where the channels of a group lie, and which of them stay: in activations, and in constants as their uses see them."""

    tensors: Mapping[str, Left]
    constants: Mapping[Use, Left]


def chosen(value: Array, positions: NDArray[np.int64] | None, axis: int) -> Array:
    """Return these positions of an array, which may have been cut to them already; None for all."""
    if positions is None or value.shape[axis] == len(positions):
        return value
    return value.take(positions, axis=axis)


def taken(value: Array, cuts: Sequence[Left]) -> Array:
    """Return what is left of an array."""
    for axis, positions in cuts:
        value = value.take(positions, axis=axis)
    return value


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Original:
    """rows: what is left of the outputs of weights, on their own axis.

    left: of tensors that are smaller in the pruned model. places: the position here for each position there; empty where they are the same.
    """

    network: Network
    left: Mapping[str, Left] = field(default_factory=dict)
    places: tuple[int, ...] = ()
    rows: Mapping[Use, NDArray[np.int64]] = field(default_factory=dict)

    def place(self, position: int) -> int:
        """Return where the original is when the pruned model is at `position`."""
        return self.places[position] if self.places else position


OUTPUT, RESIDUAL, GRADIENT = "producer output", "reader residual", "gradient"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Aim:
    """The tensor that a contraction should reproduce: tensor = scale * output + shift + share * other, channel by channel.

    scale, shift: (channels,) float64. other: what is added, or None. share: how much of it. flat: the activation behind does not tell apart values
    below flat[0], nor values above flat[1]. axis: that of the channels. outputs: those of them that count, of which scale and shift are; None for all.
    """

    tensor: str
    scale: Float64
    shift: Float64
    other: str | None
    flat: tuple[float, float] | None
    share: float = 1.0
    product: Product | None = None
    """What is reproduced is this product of `tensor`, and not the tensor itself."""
    axis: int = 1
    outputs: Int64 | None = None

    def on(self, axis: int, channels: Int64 | None) -> "Aim":
        """Return the aim of these channels alone, which lie on `axis`; None for all."""
        found = replace(self, axis=axis, outputs=channels)
        return found if channels is None else replace(found, scale=self.scale[channels], shift=self.shift[channels])

    def counting(self, values: Array) -> Array:
        """Return the channels that count of `tensor`, or of another of its shape; they may be all that there are."""
        return chosen(values, self.outputs, self.axis)

    def target(self, wanted: Array, other: Array | None) -> Array:
        """Return the output that makes `tensor` equal to `wanted`."""
        result = wanted.astype(np.float32, copy=False)
        if other is not None:
            beside = other.astype(np.float32, copy=False)
            result = result - (beside if self.share == 1.0 else np.float32(self.share) * beside)
        shape = tuple(-1 if index == self.axis else 1 for index in range(result.ndim))
        if np.any(self.shift):
            result = result - self.shift.astype(np.float32).reshape(shape)
        if np.any(self.scale != 1.0):
            result = result / self.scale.astype(np.float32).reshape(shape)
        return result

    def residual(self, wanted: Array, current: Array) -> Float32:
        """Return what the output falls short by where `tensor` is `current`, as far as the activation behind can tell."""
        now, wish = current.astype(np.float32, copy=False), wanted.astype(np.float32, copy=False)
        return self.unscaled((wish if self.flat is None else self.seen(wish, now)) - now)

    def unscaled(self, values: Float32) -> Float32:
        """Return differences of `tensor` in the terms of the output."""
        if np.any(self.scale != 1.0):
            return values / self.scale.astype(np.float32).reshape(
                [-1 if at == self.axis else 1 for at in range(values.ndim)]
            )
        return values

    def seen(self, original: Array, current: Array) -> Float32:
        """Return the original values, but where the activation is flat those of the pruned model that lie on the right side."""
        assert self.flat is not None
        low, high = self.flat
        wanted, now = original.astype(np.float32, copy=False), current.astype(np.float32, copy=False)
        seen: Float32 = wanted
        if np.isfinite(high):
            seen = np.where(wanted >= high, np.maximum(now, np.float32(high)), seen)
        if np.isfinite(low):
            seen = np.where(wanted <= low, np.minimum(now, np.float32(low)), seen)
        return seen


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Adjoint:
    """See the module. output: name of the producer's output. model: reads OUTPUT and RESIDUAL, computes GRADIENT; serialized.

    RESIDUAL and GRADIENT may be of some of the reader's outputs, and of the producer's, alone; and so may OUTPUT, of `channels` on `axis`.
    beside: other tensors of the pruned model that it reads (int64), each under the name that `beside` gives it.
    """

    output: str
    model: bytes
    channels: Int64 | None
    axis: int
    beside: tuple[str, ...] = ()

    def feeds(self, have: Mapping[str, Array], residual: Array) -> dict[str, Array]:
        """Return the inputs of the model for tensors of the pruned model, by name, and the reader's residual."""
        others = {beside(name): have[name] for name in self.beside}
        return {OUTPUT: chosen(have[self.output], self.channels, self.axis), RESIDUAL: residual, **others}


def beside(name: str) -> str:
    """Return the name that an adjoint has for a tensor that it reads beside the producer's output."""
    return f"beside/{name}"
