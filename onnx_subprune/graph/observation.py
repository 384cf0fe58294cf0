"""Shapes as they are when the model runs: inference leaves them unknown in common exports, so the model is run twice.

The second run has another batch size (and, where the model takes it, other free dimensions): an axis whose size differs is
*varying*, and so is an element of a shape-like value that differs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, ValueInfoProto

from onnx_subprune import runtime
from onnx_subprune.errors import ModelError, SubpruneError
from onnx_subprune.graph.model import Network

FREE_SIZES = (64, 32, 224, 16, 128, 8, 256, 4, 1)
"""Tried in this order for dimensions that the model leaves open, other than the batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What two runs of the model show.

    shapes: of all activations, in the first run.
    values: small integer tensors, in the first run; `varying` masks their elements that differ in the second.
    varying_axes: axes whose size differs between the runs, by tensor.
    batch: size of the batch axis in the first run (1 for a model without one).
    """

    shapes: Mapping[str, tuple[int, ...]]
    values: Mapping[str, NDArray[np.generic]]
    varying: Mapping[str, NDArray[np.bool_]]
    varying_axes: Mapping[str, frozenset[int]]
    batch: int


def observe(network: Network) -> Observation:
    """Run `network` on made-up inputs of the declared types and shapes; ModelError if it does not run at all."""
    first, sizes = _first_run(network)
    second = _second_run(network, sizes)
    shapes = {name: seen.shape for name, seen in first.items()}
    values = {name: seen.value for name, seen in first.items() if seen.value is not None}
    varying, varying_axes = {}, {}
    for name, seen in first.items():
        other = second.get(name, seen)
        if len(other.shape) == len(seen.shape):
            varying_axes[name] = frozenset(
                i for i, (a, b) in enumerate(zip(seen.shape, other.shape, strict=True)) if a != b
            )
        else:
            varying_axes[name] = frozenset(range(len(seen.shape)))
        if seen.value is not None:
            same = other.value is not None and other.value.shape == seen.value.shape
            varying[name] = seen.value != other.value if same else np.ones(seen.value.shape, bool)
    return Observation(shapes=shapes, values=values, varying=varying, varying_axes=varying_axes, batch=sizes.batch)


@dataclass(frozen=True, slots=True)
class _Sizes:
    batch: int
    free: int


def _first_run(network: Network) -> tuple[Mapping[str, runtime.Observed], _Sizes]:
    trials = [_Sizes(batch, free) for batch in _batches(network) for free in _frees(network)]
    problem: SubpruneError | None = None
    for sizes in trials:
        try:
            return _run(network, sizes), sizes
        except SubpruneError as error:
            problem = problem or error
    raise ModelError(f"the model does not run on inputs of its declared types and shapes: {problem}") from problem


def _second_run(network: Network, sizes: _Sizes) -> Mapping[str, runtime.Observed]:
    batch = sizes.batch + 1 if sizes.batch > 1 else 1
    free = {64: 96, 32: 64, 224: 256}.get(sizes.free, sizes.free * 2)
    for other in (_Sizes(batch, free), _Sizes(batch, sizes.free)):
        if other != sizes:
            try:
                return _run(network, other)
            except SubpruneError:
                continue
    return {}


def _batches(network: Network) -> Sequence[int]:
    return (2, 1) if any(_open(value, 0) for value in network.inputs) else (1,)


def _frees(network: Network) -> Sequence[int]:
    ranks = [len(value.type.tensor_type.shape.dim) for value in network.inputs]
    free = any(_open(v, axis) for v, rank in zip(network.inputs, ranks, strict=True) for axis in range(1, rank))
    return FREE_SIZES if free else FREE_SIZES[:1]


def _open(value: ValueInfoProto, axis: int) -> bool:
    dims = value.type.tensor_type.shape.dim
    return axis < len(dims) and dims[axis].dim_value <= 0


def _run(network: Network, sizes: _Sizes) -> Mapping[str, runtime.Observed]:
    generator = np.random.default_rng(0)
    feeds = {value.name: _feed(value, sizes, generator) for value in network.inputs}
    return runtime.observe_shapes(network.proto, feeds, network.folder)


def _feed(value: ValueInfoProto, sizes: _Sizes, generator: np.random.Generator) -> NDArray[np.generic]:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or kind.elem_type == TensorProto.STRING:
        raise ModelError(f"input {value.name!r} is not a numeric tensor: such models cannot be pruned")
    dims = [dim.dim_value or (sizes.batch if axis == 0 else sizes.free) for axis, dim in enumerate(kind.shape.dim)]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    if np.issubdtype(dtype, np.integer) or dtype == np.bool_:
        return np.zeros(dims, dtype)
    return generator.standard_normal(dims).astype(dtype)
