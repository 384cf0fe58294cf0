"""Tensors of a chunk computed from those that are held of it, in one run or in pieces."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_subprune._typing import Array
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.streaming.settings import Running
from onnx_subprune.calibration.streaming.submodel import Changed, part_of, slot_name
from onnx_subprune.errors import ModelError
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.network import Network
from onnx_subprune.runtime.session import Session
from onnx_subprune.runtime.spill import Held

PIECE = 8 << 20
"""Bytes of inputs of a run, if they are samples of more than that share: what comes out in between then stays in the caches, and is never
gigabytes. A convolutional network on photographs takes half the time that it takes in batches of 32."""


PLAIN = frozenset(np.dtype(name) for name in ("float16", "float32", "float64", "int32", "int64", "bool"))
"""Element types that may be written in place."""


Read = Callable[[int], Mapping[str, Array]]
"""From the number of a chunk to tensors of it; may be called from several threads."""


@dataclass(frozen=True, slots=True, eq=False)
class Fed:
    """What a chunk feeds to an input: it stays where the data are."""

    data: Calibration
    name: str
    number: int

    @property
    def size(self) -> int:
        """Bytes."""
        if self.name in self.data.shared:
            return self.data.shared[self.name].nbytes
        array = self.data.arrays[self.name]
        return min(self.data.chunk, self.data.samples) * (array.nbytes // max(len(array), 1))

    def get(self) -> Array:
        """Return the array."""
        return self.data.fed(self.name, self.number)

    def free(self) -> None:
        """Nothing is held."""


Chunks = Sequence[Mapping[str, Held | Fed]]
"""For every chunk what is held of it, by name."""


class Runner:
    """A session for the part of the model between what is held of a chunk, and of others that hold the same, and some tensors."""

    def __init__(
        self,
        network: Network,
        running: Running,
        held: Chunks,
        names: Sequence[str],
        changed: Changed,
        chunk: int,
        side: int,
    ) -> None:
        self._running, self._held = running, held
        there = held[chunk]
        self._there = [name for name in names if name in there]  # nothing computes these
        self._names = [name for name in names if name not in there]
        chosen, needed = network.ancestors(self._names, list(there))
        self._inputs = [name for name in there if name in needed]
        model = part_of(network, chosen, {name: there[name].get() for name in self._inputs}, self._names, changed)
        self._session = running.open(model, side, network.folder) if self._names else None

    def __call__(self, chunk: int, values: Mapping[Use, Array] | None = None) -> Mapping[str, Array]:
        """Return the tensors for one chunk; `values` are those of the opened uses."""
        held = self._held[chunk]
        found = {name: held[name].get() for name in self._there}
        if self._session is None:
            return found
        feeds = {name: held[name].get() for name in self._inputs}
        fixed = {slot_name(use): value for use, value in (values or {}).items()}
        made = self._in_pieces(self._session, feeds, fixed) or self._session.run({**feeds, **fixed}, self._names)
        return {**found, **made}

    def _in_pieces(
        self, session: Session, feeds: Mapping[str, Array], fixed: Mapping[str, Array]
    ) -> Mapping[str, Array] | None:
        """Run few samples at a time, where everything that goes in and comes out has its samples one after another; None elsewhere."""
        known = self._running.rows
        rows = {name: known.get(name, -1) for name in feeds}
        made = {name: known.get(name, 0) for name in self._names}
        counts = {len(feeds[name]) / count for name, count in rows.items() if count > 0}
        if len(counts) != 1 or min(rows.values()) < 0 or not all(count > 0 for count in made.values()):
            return None
        samples = int(min(counts))
        each = sum(feeds[name].nbytes for name, count in rows.items() if count) // max(samples, 1)
        size = min(self._running.batch_size, max(1, PIECE // max(each, 1)))
        if samples <= size or samples not in counts:
            return None

        def part(start: int) -> dict[str, Array]:
            return {
                name: np.asarray(
                    array[start * rows[name] : (start + size) * rows[name]] if rows[name] else array, order="C"
                )
                for name, array in feeds.items()
            }

        first = session.run({**part(0), **fixed}, self._names)
        if any(array.shape[:1] != (size * made[name],) or array.dtype not in PLAIN for name, array in first.items()):
            return None
        whole = {name: np.empty((samples * made[name], *array.shape[1:]), array.dtype) for name, array in first.items()}
        for name, array in first.items():
            whole[name][: len(array)] = array
        fixed = {name: np.ascontiguousarray(array) for name, array in fixed.items()}
        for start in range(size, samples, size):
            into = {name: array[start * made[name] : (start + size) * made[name]] for name, array in whole.items()}
            try:
                session.fill({**part(start), **fixed}, into)
            except ModelError:  # there is something else on the first axis of an output
                return None
        return whole
