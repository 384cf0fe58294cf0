"""Inputs of the runs in which a model is looked at: those of the data where there are any, else noise of the declared shapes.

A second run has other contents, another number of samples and other sizes where the model leaves them open.
"""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, ValueInfoProto

from onnx_subprune.errors import ModelError
from onnx_subprune.graph.example import Example, Feeds, Shapes
from onnx_subprune.graph.network import Network
from onnx_subprune.runtime.session import counts_samples

FREE_SIZES = (64, 32, 224, 16, 128, 8, 256, 4, 1)
"""Tried in this order for dimensions that the model leaves open, other than the batch."""
MOST = 64
"""Sizes of the data grow by at most this much in the first attempts: images of many pixels would take long."""

LARGEST = 1 << 27
"""Bytes of a made-up input beyond which a model is not run."""


def made_up_example(network: Network, samples: int, free: int, constants: Feeds = MappingProxyType({})) -> Example:
    """Return noise, and zeros where inputs are integers, with `free` places on axes of open size; `constants` are given."""
    names = _numbered(network, batched=True)
    opened = frozenset(value.name for value in network.inputs if _open(value, 0) and value.name not in constants)
    generator = np.random.default_rng(0)
    feeds = {
        value.name: _noise(value, [samples if number == -1 else free for number in _numbers(value, names)], generator)
        for value in network.inputs
    }
    feeds = {**feeds, **constants}
    fixed = frozenset(constants)
    firsts = {array.shape[:1] for name, array in feeds.items() if name not in fixed}
    if not opened and any(
        _batches(value) for value in network.inputs
    ):  # the batch stands behind the first axis: one sample
        return Example(feeds=feeds, samples=1, stacked=frozenset(), free=False, constant=fixed)
    if not opened and len(firsts) == 1 and () not in firsts:  # a fixed batch
        return Example(
            feeds=feeds, samples=firsts.pop()[0] or 1, stacked=frozenset(feeds) - fixed, free=False, constant=fixed
        )
    return Example(feeds=feeds, samples=samples if opened else 1, stacked=opened, free=bool(opened), constant=fixed)


def example_of(network: Network, shapes: Shapes) -> Example:
    """Return noise, and zeros where inputs are integers, of these shapes; ModelError if they are not those of the inputs."""
    generator = np.random.default_rng(0)
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in network.inputs}
    if {name: len(shape) for name, shape in shapes.sizes.items()} != ranks:
        raise ModelError("the inputs of the model are not those that the moments were collected with")
    feeds = {value.name: _noise(value, shapes.sizes[value.name], generator) for value in network.inputs}
    return Example(feeds=feeds, samples=shapes.samples, stacked=frozenset(shapes.stacked), free=shapes.free)


def invented(network: Network, constants: Feeds = MappingProxyType({})) -> Mapping[str, tuple[int | str, ...]]:
    """Return the declared shapes of the inputs that have an axis of open size beside the first, the names of what is open in them."""
    found = {}
    for value in network.inputs:
        dims = value.type.tensor_type.shape.dim
        if value.name not in constants and any(_open(value, axis) for axis in range(1, len(dims))):
            found[value.name] = tuple(
                _name(value, axis) if _open(value, axis) else dims[axis].dim_value for axis in range(len(dims))
            )
    return found


def others(network: Network, example: Example, *, real: bool) -> list[Feeds]:
    """Return feeds for a second run, those first that tell most. real: the example is of the data, and its sizes may be the only ones that go."""
    names = _numbered(network, batched=bool(example.stacked))
    sizes = _sizes_of(network, example.feeds, names)
    count = len(sizes)
    steps = [max(1, min(size // 2, MOST) if real else size // 2) for size in sizes]
    extras = [
        tuple(step * (1 + number) for number, step in enumerate(steps)),
        tuple(steps),
        tuple(step if number else -(step // 2) for number, step in enumerate(steps)),
        tuple(step if number == count - 1 else 0 for number, step in enumerate(steps)),
        tuple(0 if number else step for number, step in enumerate(steps)),
        *([tuple(sizes)] if real else []),
        (0,) * count,
    ]
    batch = example.samples
    batches = [batch + 1, batch * 2, 1, batch] if example.free and batch > 1 else [batch]
    if example.free and batch == 1 and real:
        batches = [2, 1]
    whole = any(value.type.tensor_type.elem_type not in FLOATING for value in network.inputs)
    found = []
    for samples in batches:
        for extra in dict.fromkeys(extras):
            for seed in (1, 2) if whole else (1,):
                sized = [size + more for size, more in zip(sizes, extra, strict=True)]
                found.append(_other(network, example, (samples, sized, names), seed, real=real))
    return found


FLOATING = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16})


def open_sizes(network: Network) -> bool:
    """True if some input has an axis of open size."""
    return bool(_numbered(network, batched=False))


def _other(
    network: Network, example: Example, shape: tuple[int, Sequence[int], Mapping[str, int]], seed: int, *, real: bool
) -> Feeds:
    samples, sizes, names = shape
    generator = np.random.default_rng(seed)
    feeds = {}
    for value in network.inputs:
        given = example.feeds[value.name]
        if value.name in example.constant:
            feeds[value.name] = given
            continue
        dims = [
            size if number is None else samples if number < 0 else sizes[number]
            for number, size in zip(_numbers(value, names), given.shape, strict=True)
        ]
        if value.name in example.stacked and example.free and dims:
            dims[0] = samples
        if not real:
            feeds[value.name] = _noise(value, dims, generator, seed % 2)
        elif given.dtype.kind in "iub" and seed == 1:
            feeds[value.name] = np.where(np.resize(given, dims) == 1, 0, 1).astype(given.dtype)
        else:
            moved = np.roll(given.ravel(), given.size // 2 + 1)
            feeds[value.name] = np.resize(moved, dims) if given.size else np.zeros(dims, given.dtype)
    return feeds


def _noise(
    value: ValueInfoProto, dims: Sequence[int], generator: np.random.Generator, whole: int = 0
) -> NDArray[np.generic]:
    """Noise where sizes are open or declared; integers are all `whole`."""
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or kind.elem_type == TensorProto.STRING:
        raise ModelError(f"input {value.name!r} is not a numeric tensor: such models cannot be pruned")
    shape = [size if _open(value, axis) else kind.shape.dim[axis].dim_value for axis, size in enumerate(dims)]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    if math.prod(shape) * dtype.itemsize > LARGEST:
        raise ModelError(
            f"input {value.name!r} is declared as {' x '.join(map(str, shape))}, more than {LARGEST >> 20} MB a run: "
            "without data of such a size (--data) a model like this is not looked at"
        )
    if np.issubdtype(dtype, np.integer) or dtype == np.bool_:
        return np.full(shape, whole, dtype)
    return generator.standard_normal(shape).astype(dtype)


def _sizes_of(network: Network, feeds: Feeds, names: Mapping[str, int]) -> list[int]:
    """The size of each open dimension other than the batch, by number."""
    sizes: dict[int, int] = {}
    for value in network.inputs:
        for number, size in zip(_numbers(value, names), feeds[value.name].shape, strict=True):
            if number is not None and number >= 0:
                sizes.setdefault(number, size)
    return [sizes[number] for number in sorted(sizes)]


def _numbers(value: ValueInfoProto, names: Mapping[str, int]) -> list[int | None]:
    """The number of the open dimension on each axis; None where the size is declared."""
    dims = range(len(value.type.tensor_type.shape.dim))
    return [names[_name(value, axis)] if _open(value, axis) else None for axis in dims]


def _open(value: ValueInfoProto, axis: int) -> bool:
    dims = value.type.tensor_type.shape.dim
    return axis < len(dims) and dims[axis].dim_value <= 0


def _name(value: ValueInfoProto, axis: int) -> str:
    return value.type.tensor_type.shape.dim[axis].dim_param or f"{value.name}/{axis}"


def _batches(value: ValueInfoProto) -> list[str]:
    """The names of open dimensions that are called what batches are called."""
    dims = range(len(value.type.tensor_type.shape.dim))
    names = [_name(value, axis) for axis in dims if _open(value, axis)]
    return [name for name in names if counts_samples(name)]


def _numbered(network: Network, *, batched: bool) -> Mapping[str, int]:
    """Number the open dimensions: with `batched` -1 for what stands on the first axis of some input, else in order of appearance."""
    found: dict[str, int] = {}
    if batched:
        found = {_name(value, 0): -1 for value in network.inputs if _open(value, 0)}
        found = found or {name: -1 for value in network.inputs for name in _batches(value)}
    for value in network.inputs:
        for axis in range(len(value.type.tensor_type.shape.dim)):
            if _open(value, axis):
                found.setdefault(_name(value, axis), sum(number >= 0 for number in found.values()))
    return found
