"""Samples that alone show a channel alive are not held out: nothing that is fitted to the others could know of it."""

from collections.abc import Iterator, Mapping, Sequence
from math import prod

import numpy as np

from onnx_subprune._typing import Array, Int64, Mask
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.graph.channels import ChannelGraph
from onnx_subprune.graph.formats import model_bytes
from onnx_subprune.graph.network import LARGE, Network
from onnx_subprune.runtime.observing import observing

AT_ONCE = 256 << 20
"""Bytes of activations that are looked at in one run."""


def rare(network: Network, graph: ChannelGraph, used: Calibration, held: Calibration) -> Int64:
    """Return which of the samples `held` show channels alive, that read layers of groups, that are dead on all of `used`; those that show most first.

    Costs a pass over `held`, and of `used` as much as it takes to see those channels alive. Nothing is looked at in models with side files of more
    than `LARGE` bytes, nor where samples are no first axis of the activations.
    """
    axes = {c.contraction.input.tensor: c.contraction.input.index for group in graph.groups for c in group.consumers}
    names = [name for name in axes if name in network.producer and axes[name] > 0]
    if not names or used.runs or model_bytes(network.proto) > LARGE:
        return np.zeros(0, np.int64)
    session = observing(network.proto, names, network.folder)
    size, shapes = _size(graph, names, used), graph.observation.shapes

    def seen(data: Calibration) -> Iterator[Mapping[str, Mask]]:
        for start in range(0, data.samples, size):
            places = np.arange(start, min(start + size, data.samples), dtype=np.int64)
            made = session.run(data.at(places).feeds(len(places)), names)
            yield {name: _alive(made[name], shapes[name], axes[name], len(places)) for name in names}

    pieces = list(seen(held))
    shown = {name: np.concatenate([piece[name] for piece in pieces]) for name in names}
    missing = {name: mask.any(axis=0) for name, mask in shown.items()}
    for piece in seen(used):
        missing = {name: mask & ~piece[name].any(axis=0) for name, mask in missing.items()}
        if not any(mask.any() for mask in missing.values()):
            return np.zeros(0, np.int64)
    alone = np.sum([np.count_nonzero(shown[name] & missing[name], axis=1) for name in names], axis=0)
    return np.argsort(-alone, kind="stable")[: np.count_nonzero(alone)].astype(np.int64)


def _size(graph: ChannelGraph, names: list[str], data: Calibration) -> int:
    """Samples a run."""
    shapes, batch = graph.observation.shapes, max(graph.observation.batch, 1)
    each = sum(4 * prod(shapes[name]) // batch for name in names)
    return data.fixed or max(1, min(data.chunk, AT_ONCE // max(each, 1)))


def _alive(value: Array, shape: Sequence[int], axis: int, samples: int) -> Mask:
    """Which channels are not zero everywhere, (samples, channels); of all samples at once where the first axis does not count them.

    shape: what was observed. A Squeeze without axes takes that of a single sample, too: where it was the first one, it is put back.
    """
    value = value.reshape(*(1,) * (len(shape) - value.ndim), *value.shape)
    if value.ndim != len(shape) or value.shape[axis] != shape[axis]:
        return np.zeros((samples, shape[axis]), bool)
    moved = np.moveaxis(value != 0, axis, -1)
    if moved.shape[0] % samples:
        return np.broadcast_to(moved.reshape(-1, moved.shape[-1]).any(axis=0), (samples, moved.shape[-1]))
    return np.asarray(moved.reshape(samples, -1, moved.shape[-1]).any(axis=1))
