"""Channel shuffles: Reshape, Transpose and Reshape that together put the channels in another order."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_subprune._typing import Int64
from onnx_subprune.graph.operators import key_of
from onnx_subprune.graph.rules.digits import segments
from onnx_subprune.graph.rules.vocabulary import Site


@dataclass(frozen=True, slots=True)
class Shuffle:
    """Reshape, Transpose, Reshape that together permute axis `axis` of tensor `source`: out[i] = source[order[i]]."""

    source: str
    axis: int
    order: Int64
    nodes: tuple[int, int, int]


def shuffle_from(site: Site) -> Shuffle | None:
    """Return the shuffle that starts at this Reshape, if one does."""
    chain = [site.index]
    for expected in ("Transpose", "Reshape"):
        name = site.network.nodes[chain[-1]].output[0]
        readers = site.network.readers.get(name, ())
        if len(readers) != 1 or name in site.network.outputs:
            return None
        index, slot = readers[0]
        if slot != 0 or key_of(site.network.nodes[index]) != expected:
            return None
        chain.append(index)
    first, middle, last = (Site(site.network, site.observation, index) for index in chain)
    shape, split, perm = first.shape(0), first.out_shape(), middle.integers("perm")
    if last.out_shape() != shape or perm is None or split == shape:
        return None
    whole = {ins[0]: outs[0] for ins, outs in segments(shape, split) if len(ins) == len(outs) == 1}
    shape, split = _shrunk(shape, whole.keys()), _shrunk(split, whole.values())
    flat = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    moved = flat.reshape(split).transpose(perm).reshape(shape)
    if np.array_equal(flat, moved):
        return None
    for axis in range(len(shape)):
        start = np.take(flat, 0, axis=axis).ravel()[0]
        stride = int(np.prod(shape[axis + 1 :]))
        line = moved[tuple(slice(None) if i == axis else 0 for i in range(len(shape)))]
        order = (line - start) // stride
        if (
            shape[axis] > 1
            and sorted(order) == list(range(shape[axis]))
            and np.array_equal(np.take(flat, order, axis=axis), moved)
        ):
            return Shuffle(first.node.input[0], axis, order, (chain[0], chain[1], chain[2]))
    return None


def _shrunk(shape: Sequence[int], axes: Collection[int]) -> tuple[int, ...]:
    """Axes that no Reshape touches are as good with two positions, and cheaper."""
    return tuple(min(size, 2) if axis in axes else size for axis, size in enumerate(shape))


def shuffle_to(site: Site) -> Shuffle | None:
    """Return the shuffle that ends at this Reshape, if one does."""
    network = site.network
    middle = network.producer.get(site.node.input[0], -1)
    if middle < 0 or key_of(network.nodes[middle]) != "Transpose":
        return None
    first = network.producer.get(network.nodes[middle].input[0], -1)
    if first < 0 or key_of(network.nodes[first]) != "Reshape":
        return None
    found = shuffle_from(Site(network, site.observation, first))
    return found if found is not None and found.nodes[2] == site.index else None
