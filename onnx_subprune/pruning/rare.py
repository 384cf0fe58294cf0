"""Samples that alone show a channel alive are not held out: nothing that is fitted to the others could know of it."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from math import prod

import numpy as np

from onnx_subprune._typing import Array, Int64, Mask
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.graph.channels import ChannelGraph
from onnx_subprune.graph.formats import model_bytes
from onnx_subprune.graph.network import LARGE, Network
from onnx_subprune.runtime.observing import observing
from onnx_subprune.runtime.session import Session

AT_ONCE = 256 << 20
"""Bytes of activations that are looked at in one run."""


class Rare:
    """Tells of samples which show channels alive, that read layers of groups, that are dead on all others; each sample is looked at once.

    Nothing is looked at in models with side files of more than `LARGE` bytes, nor where samples are no first axis of the activations.
    """

    def __init__(self, network: Network, graph: ChannelGraph) -> None:
        self._network, self._graph = network, graph
        axes = {
            c.contraction.input.tensor: c.contraction.input.index for group in graph.groups for c in group.consumers
        }
        large = model_bytes(network.proto) > LARGE
        self._axes = {name: axis for name, axis in axes.items() if name in network.producer and axis > 0 and not large}
        self._known: dict[int, dict[str, Mask]] = {}

    def __call__(self, used: Calibration, held: Calibration) -> Int64:
        """Return which of the samples `held` show what all of `used` do not, those that show most first.

        Both are parts of the same data. Costs a pass over `held`, and of `used` as much as it takes to see those channels alive.
        """
        names = [*self._axes]
        if not names or used.runs:
            return np.zeros(0, np.int64)
        pieces = list(self._seen(held))
        shown = {name: np.concatenate([piece[name] for piece in pieces]) for name in names}
        missing = {name: mask.any(axis=0) for name, mask in shown.items()}
        for piece in self._seen(used):
            missing = {name: mask & ~piece[name].any(axis=0) for name, mask in missing.items()}
            if not any(mask.any() for mask in missing.values()):
                return np.zeros(0, np.int64)
        alone = np.sum([np.count_nonzero(shown[name] & missing[name], axis=1) for name in names], axis=0)
        return np.argsort(-alone, kind="stable")[: np.count_nonzero(alone)].astype(np.int64)

    def _seen(self, data: Calibration) -> Iterator[Mapping[str, Mask]]:
        """Which channels each sample shows alive, (samples, channels) by tensor, piece by piece."""
        size = _size(self._graph, [*self._axes], data)
        rows = np.arange(data.samples) if data.rows is None else data.rows
        for start in range(0, data.samples, size):
            places = np.arange(start, min(start + size, data.samples), dtype=np.int64)
            unknown = np.array([place for place in places if int(rows[place]) not in self._known], np.int64)
            if len(unknown):
                for name, mask in self._alive_in(data.at(unknown), len(unknown)).items():
                    for place, own in zip(rows[unknown].tolist(), mask, strict=True):
                        self._known.setdefault(place, {})[name] = own
            yield {name: np.stack([self._known[int(row)][name] for row in rows[places]]) for name in self._axes}

    def _alive_in(self, data: Calibration, samples: int) -> dict[str, Mask]:
        names, shapes = [*self._axes], self._graph.observation.shapes
        made = self._session.run(data.feeds(samples), names)
        return {name: _alive(made[name], shapes[name], self._axes[name], samples) for name in names}

    @cached_property
    def _session(self) -> Session:
        return observing(self._network.proto, [*self._axes], self._network.folder)


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
