"""A model that advances through its graph, a step at a time, over the calibration chunks.

A stream holds, for every chunk, the tensors that are alive at its position: made by the nodes before it and read by the
nodes from it on. `read` computes any tensor from those; `advance` moves the position. A chunk follows when it is read: those that nobody looks
at on the way stay where they are, and come after in one run. Weights can be overridden as the stream goes: that is
how the pruned model runs before it exists, with zeros in the rows of dropped channels (slicing equals masking).
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat

import onnx

from onnx_subprune._typing import Array
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.streaming.runner import Fed, Read, Runner
from onnx_subprune.calibration.streaming.settings import Running
from onnx_subprune.calibration.streaming.submodel import Changed
from onnx_subprune.calibration.streaming.target import Cut, Left, taken
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.network import Network
from onnx_subprune.runtime.spill import Held, Store
from onnx_subprune.runtime.threads import alongside

AT_WORK = 3
"""Tensors of the size of the largest that is held that work on a chunk takes; all chunks at work may take as much as is held."""


SIZES = frozenset(
    (
        *("Shape", "Size", "Constant", "ConstantOfShape", "Gather", "Slice", "Concat", "Cast", "Squeeze", "Unsqueeze"),
        *("Reshape", "Identity", "Add", "Sub", "Mul", "Div", "Mod", "Range", "Expand", "Equal", "Where"),
    )
)
"""Operators that sizes are computed with."""


class Stream:
    """See the module. `position` counts nodes of `network`; the stream begins at 0 with the calibration data."""

    def __init__(self, network: Network, data: Calibration, store: Store, running: Running) -> None:
        self._network, self._store, self._running = network, store, running
        self._overrides: dict[Use, Array] = {}
        self._cuts: dict[Use, list[Left]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self.position, self.chunks = 0, data.chunk_count
        self._wanted = [value.name for value in network.inputs if value.name in network.readers]
        self._held: list[dict[str, Held | Fed]] = [
            {name: Fed(data, name, number) for name in self._wanted} for number in range(self.chunks)
        ]
        self._at = [0] * self.chunks

    def override(self, use: Use, value: Array) -> None:
        """From now on the node of `use` sees `value` in that slot, as far as it has not been cut."""
        self._overrides[use] = taken(value, self._cuts.get(use, ()))

    def cut(self, cut: Cut) -> None:
        """From now on there are these channels alone; the nodes that make and read them lie ahead."""
        for use, left in cut.constants.items():
            inputs = self._network.node(use.node).input
            if use not in self._overrides and use.slot < len(inputs) and inputs[use.slot]:
                self.override(use, self._network.array(inputs[use.slot]))
            if use in self._overrides:
                self._overrides[use] = taken(self._overrides[use], [left])
            self._cuts.setdefault(use, []).append(left)
        for name, left in cut.tensors.items():
            self._shapes.pop(name, None)
            for held in self._held:
                if name in held:
                    self._hold(held, name, taken(held[name].get(), [left]))

    def read(self, names: Sequence[str], chunks: Sequence[int] | None = None) -> Iterator[Mapping[str, Array]]:
        """Yield, chunk by chunk, the tensors `names`, computed from what is held where they are not held themselves.

        chunks: which; all if it is None.
        """
        chosen = range(self.chunks) if chunks is None else chunks
        self.bring(chosen)
        side = self.side_by_side(len(chosen))
        yield from alongside(self.reader(names, chosen, side), ((chunk,) for chunk in chosen), side)

    def side_by_side(self, chunks: int) -> int:
        """Return how many of so many chunks to work on at a time: one a thread, as far as memory goes."""
        largest = max((item.size for held in self._held for item in held.values()), default=0)
        room = self._store.budget // max(AT_WORK * largest, 1)
        return max(1, min(self._running.cores, chunks, room))

    def reader(self, names: Sequence[str], chunks: Sequence[int], side: int) -> Read:
        """Return what reads the tensors `names` of each of `chunks`, so many side by side; until the stream moves."""
        self.bring(chunks)
        missing = [name for name in names if name not in self._wanted]
        there = [name for name in names if name in self._wanted]
        run = self._runner(missing, chunks[0], side) if missing and chunks else None

        def read(chunk: int) -> Mapping[str, Array]:
            found = {name: self._held[chunk][name].get() for name in there}
            return found if run is None else {**found, **run(chunk)}

        return read

    def advance(self, position: int, also: Sequence[str] = ()) -> None:
        """Move on to `position`: what is alive there, and `also`, will be held of the chunks that are read, and nothing else."""
        self.position = position
        self._wanted = [*dict.fromkeys([*self._alive(position), *also])]
        needed = {at: {*self._alive(at), *self._wanted} for at in set(self._at)}
        for held, at in zip(self._held, self._at, strict=True):
            for name in held.keys() - needed[at]:  # constants in front of it may change
                held.pop(name).free()

    def bring(self, chunks: Sequence[int]) -> None:
        """Let these chunks come to where the stream is."""
        behind: dict[tuple[str, ...], list[int]] = {}
        wanted = set(self._wanted)
        for chunk in chunks:
            if self._at[chunk] != self.position or self._held[chunk].keys() != wanted:
                behind.setdefault(tuple(sorted(self._held[chunk])), []).append(chunk)
        for there, some in behind.items():
            self._come([name for name in self._wanted if name not in there], some)
        if behind:
            places, least = self._network.position, min(self._at)
            self._overrides = {use: value for use, value in self._overrides.items() if places[use.node] >= least}
            self._store.give_back()

    def _come(self, missing: Sequence[str], chunks: Sequence[int]) -> None:
        """Compute what is missing of chunks that hold the same tensors, and let go of what is not wanted any more."""
        side = self.side_by_side(len(chunks))
        run = self._runner(missing, chunks[0], side) if missing else None
        made = alongside(run, ((chunk,) for chunk in chunks), side) if run else repeat({}, len(chunks))
        for chunk, found in zip(chunks, made, strict=True):
            held = self._held[chunk]
            for name in held.keys() - set(self._wanted):
                held.pop(name).free()
            for name, array in found.items():
                self._hold(held, name, array)
            self._at[chunk] = self.position

    def _runner(self, names: Sequence[str], chunk: int, side: int) -> Read:
        """Return what computes `names` from what such a chunk holds; sizes on their own, so that the rest can be run in pieces."""
        rows = self._running.rows
        cut = [name for name in names if rows.get(name)]
        rest = [name for name in names if name not in cut]
        light = rest and self._light(rest, chunk)
        if not (cut and light):
            return self._run(names, chunk, side)
        runs = self._run(cut, chunk, side), self._run(rest, chunk, side)
        return lambda number: {**runs[0](number), **runs[1](number)}

    def _light(self, names: Sequence[str], chunk: int) -> bool:
        """True if next to nothing is computed for `names`."""
        chosen, _ = self._network.ancestors(names, list(self._held[chunk]))
        return all(self._network.nodes[index].op_type in SIZES for index in chosen)

    def _hold(self, held: dict[str, Held | Fed], name: str, array: Array) -> None:
        if name in held:
            held[name].free()
        held[name] = self._store.put(array)

    def element_type(self, use: Use) -> int:
        """ONNX element type of the constant in that slot; of the first constant input where the slot is empty (a bias)."""
        node = self._network.node(use.node)
        names = [node.input[use.slot]] if use.slot < len(node.input) and node.input[use.slot] else list(node.input)
        name = next(name for name in names if name in self._network.constants)
        return int(onnx.helper.np_dtype_to_tensor_dtype(self._network.array(name).dtype))

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor in the first chunk of those that are nearest to it; weights do not change it."""
        if name not in self._shapes:
            near = max(range(self.chunks), key=lambda chunk: (name in self._held[chunk], self._at[chunk]))
            held = self._held[near]
            found = held[name].get() if name in held else self._run([name], near, 1)(near)[name]
            self._shapes[name] = found.shape
        return self._shapes[name]

    def close(self) -> None:
        """Let go of everything that is held."""
        for held in self._held:
            for item in held.values():
                item.free()
            held.clear()

    def _alive(self, position: int) -> list[str]:
        network = self._network
        outputs = set(network.outputs)
        inputs = {value.name for value in network.inputs}
        alive = dict[str, None]()
        for name, made in [*((name, -1) for name in inputs), *network.producer.items()]:
            if made < position and name not in network.constants:
                later = any(index >= position for index, _ in network.readers.get(name, ()))
                if later or (name in outputs and made >= 0):
                    alive |= dict.fromkeys(self._arrays(name))
        return [*alive]

    def _arrays(self, name: str) -> Iterator[str]:
        """Yield `name`, or what it is computed from where it is nothing that can be held."""
        if name not in self._running.opaque:
            yield name
            return
        for source in self._network.reads[self._network.producer[name]]:
            if source not in self._network.constants:
                yield from self._arrays(source)

    def opened(self, names: Sequence[str], uses: Sequence[Use]) -> Runner:
        """Return what computes `names` of a chunk from what is held, with the constants of `uses` given at every call."""
        self.bring(range(self.chunks))
        return self._run(names, 0, self.side_by_side(self.chunks), uses)

    def _run(self, names: Sequence[str], chunk: int, side: int, opened: Sequence[Use] = ()) -> Runner:
        changed = Changed(constants=self._overrides, inputs={use: self.element_type(use) for use in opened})
        return Runner(self._network, self._running, self._held, names, changed, chunk, side)
