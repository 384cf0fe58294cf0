"""Shapes as they are when the model runs: inference leaves them unknown in common exports, so the model is run twice.

The second run has other contents, another batch size and, where the model takes it, other free dimensions: an axis whose size differs
is *varying*, and so is an element of a shape-like value that differs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, ValueInfoProto

from onnx_subprune.errors import ModelError, SubpruneError
from onnx_subprune.graph.network import Network, key_of
from onnx_subprune.runtime import session as runtime

FREE_SIZES = (64, 32, 224, 16, 128, 8, 256, 4, 1)
"""Tried in this order for dimensions that the model leaves open, other than the batch."""

LARGEST = 1 << 32
"""Bytes of an input beyond which a model is not run."""
FLOATING = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16})
SHAPED_BY_CONTENT = frozenset({"Compress", "If", "Loop", "NonMaxSuppression", "NonZero", "Scan", "TopK", "Unique"})
"""Operators whose results have sizes, or hold positions, that depend on more than the sizes of their inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What two runs of the model show.

    shapes: of all activations, in the first run.
    values: small integer tensors, in the first run; `varying` masks their elements that differ in the second.
    other_shapes: of all activations, in the second run (empty if there was none).
    varying_axes: axes whose size differs between the runs, by tensor.
    batch: size of the batch axis in the first run (1 for a model without one).
    """

    shapes: Mapping[str, tuple[int, ...]]
    values: Mapping[str, NDArray[np.generic]]
    varying: Mapping[str, NDArray[np.bool_]]
    other_shapes: Mapping[str, tuple[int, ...]]
    varying_axes: Mapping[str, frozenset[int]]
    batch: int


def observe(network: Network) -> Observation:
    """Run `network` on made-up inputs of the declared types and shapes; ModelError if it does not run at all."""
    first, sizes = _first_run(network)
    second = _second_run(network, sizes, settled=all(seen.value is None for seen in first.values()))
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
    return Observation(
        shapes=shapes,
        values=values,
        varying=varying,
        other_shapes={name: seen.shape for name, seen in second.items()},
        varying_axes=varying_axes,
        batch=sizes.batch,
    )


def made_up(network: Network, observation: Observation) -> dict[str, NDArray[np.generic]]:
    """Return inputs of the right kinds and shapes, as in the first run: noise, and zeros where they are integers."""
    generator = np.random.default_rng(0)
    feeds: dict[str, NDArray[np.generic]] = {}
    for value in network.inputs:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        shape = observation.shapes[value.name]
        whole = np.issubdtype(dtype, np.integer) or dtype == np.bool_
        feeds[value.name] = np.zeros(shape, dtype) if whole else generator.standard_normal(shape).astype(dtype)
    return feeds


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Sizes for open dimensions: the batch, and one for each other name (or place) in order of appearance.

    extra: added to the size of each other name. seed: of the contents; odd ones have integers and truth values of 1, even ones of 0.
    """

    batch: int
    free: int
    extra: tuple[int, ...] = ()
    seed: int = 0

    def of(self, number: int) -> int:
        return self.free + (self.extra[number] if self.extra else 0)


def _first_run(network: Network) -> tuple[Mapping[str, runtime.Observed], _Sizes]:
    trials = [_Sizes(batch, free) for batch in _batches(network) for free in _frees(network)]
    problem: SubpruneError | None = None
    for sizes in trials:
        try:
            return _run(network, sizes), sizes
        except SubpruneError as error:
            if problem is None:
                runtime.Session(
                    network.proto, optimize=False, folder=network.folder
                )  # sizes do not help a model that is refused
            problem = problem or error
    raise ModelError(f"the model does not run on inputs of its declared types and shapes: {problem}") from problem


def _second_run(network: Network, sizes: _Sizes, *, settled: bool) -> Mapping[str, runtime.Observed]:
    """Other contents and sizes; if these can differ from one another (height and width), they do.

    settled: nothing that was computed could be a size or a position, so that a model with fixed inputs needs no second run.
    """
    if settled and not _open_names(network) and not any(key_of(node) in SHAPED_BY_CONTENT for node in network.nodes):
        return {}
    others = sum(number >= 0 for number in _open_names(network).values())
    step = max(1, sizes.free // 2)
    extras = [
        tuple(step * (1 + number) for number in range(others)),
        (step,) * others,
        tuple(step if number else -(step // 2) for number in range(others)),
        tuple(step if number == others - 1 else 0 for number in range(others)),
        tuple(0 if number else step for number in range(others)),
        (0,) * others,
    ]
    batches = (sizes.batch + 1, sizes.batch * 2, 1, sizes.batch) if sizes.batch > 1 else (1,)
    whole = any(value.type.tensor_type.elem_type not in FLOATING for value in network.inputs)
    trials = [
        _Sizes(batch, sizes.free, extra, seed)
        for batch in batches
        for extra in dict.fromkeys(extras)
        for seed in ((1, 2) if whole else (1,))
    ]
    for other in trials:
        try:
            return _run(network, other)
        except SubpruneError:
            continue
    raise ModelError("the model does not run twice on made-up inputs: its result depends on more than their shapes")


def _batches(network: Network) -> Sequence[int]:
    return (2, 1) if any(_open(value, 0) for value in network.inputs) else (1,)


def _frees(network: Network) -> Sequence[int]:
    ranks = [len(value.type.tensor_type.shape.dim) for value in network.inputs]
    free = any(_open(v, axis) for v, rank in zip(network.inputs, ranks, strict=True) for axis in range(1, rank))
    return FREE_SIZES if free else FREE_SIZES[:1]


def _open(value: ValueInfoProto, axis: int) -> bool:
    dims = value.type.tensor_type.shape.dim
    return axis < len(dims) and dims[axis].dim_value <= 0


def _name(value: ValueInfoProto, axis: int) -> str:
    return value.type.tensor_type.shape.dim[axis].dim_param or f"{value.name}/{axis}"


def _open_names(network: Network) -> Mapping[str, int]:
    """Number the open dimensions: -1 for what stands on the first axis of some input (the batch), else in order of appearance."""
    found: dict[str, int] = {}
    for value in network.inputs:
        if _open(value, 0):
            found[_name(value, 0)] = -1
    for value in network.inputs:
        for axis in range(1, len(value.type.tensor_type.shape.dim)):
            if _open(value, axis):
                found.setdefault(_name(value, axis), sum(number >= 0 for number in found.values()))
    return found


def _run(network: Network, sizes: _Sizes) -> Mapping[str, runtime.Observed]:
    generator = np.random.default_rng(sizes.seed)
    names = _open_names(network)
    feeds = {value.name: _feed(value, sizes, names, generator) for value in network.inputs}
    return runtime.observe_shapes(network.proto, feeds, network.folder)


def _feed(
    value: ValueInfoProto, sizes: _Sizes, names: Mapping[str, int], generator: np.random.Generator
) -> NDArray[np.generic]:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or kind.elem_type == TensorProto.STRING:
        raise ModelError(f"input {value.name!r} is not a numeric tensor: such models cannot be pruned")
    dims = []
    for axis, dim in enumerate(kind.shape.dim):
        number = names[_name(value, axis)] if _open(value, axis) else 0
        dims.append(dim.dim_value if not _open(value, axis) else sizes.batch if number < 0 else sizes.of(number))
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    if math.prod(dims) * dtype.itemsize > LARGEST:
        raise ModelError(
            f"input {value.name!r} is declared as {' x '.join(map(str, dims))}, more than {LARGEST >> 30} GB a sample: such models cannot be pruned"
        )
    if np.issubdtype(dtype, np.integer) or dtype == np.bool_:
        return np.full(dims, sizes.seed % 2, dtype)
    return generator.standard_normal(dims).astype(dtype)
