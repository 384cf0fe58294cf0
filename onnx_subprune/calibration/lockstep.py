"""Where moments come from: the original and the pruned model, advancing together over the calibration data.

The walk says what it wants to know (`Ask`) and when the models move on; where the data lie and the models run is an `Executor`'s
business. Here they run in this process (`Local`); a cluster runs one `Streams` for every shard of the data and adds up what they
collect. Chunks are told apart by their number in the whole data, and the sums do not depend on order, so every executor gives
the same bytes.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum, auto
from math import prod
from threading import Lock
from types import TracebackType
from typing import Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from onnx_subprune.calibration.adjoint import GRADIENT, OUTPUT, RESIDUAL, Adjoint
from onnx_subprune.calibration.alongside import alongside
from onnx_subprune.calibration.collector import Collector
from onnx_subprune.calibration.energies import Energies
from onnx_subprune.calibration.kernel import CONVOLUTIONS, Kernel
from onnx_subprune.calibration.regression import Sums
from onnx_subprune.calibration.rows import RowCollector
from onnx_subprune.calibration.store import Store
from onnx_subprune.calibration.stream import Running, Stream
from onnx_subprune.calibration.targets import Aim
from onnx_subprune.calibration.unfold import at, output_positions, sample_positions
from onnx_subprune.data import Calibration
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.model import Network

Array = NDArray[np.generic]
Int64 = NDArray[np.int64]
Part = TypeVar("Part", Collector, RowCollector, Energies)


SHARE = 1 / 3
"""The part of the memory that activations may hold: moments, factorizations and what is worked on take the rest."""
WORTH = 3
"""Maps with fewer positions, in units of those asked for, are taken whole: lags make that as cheap."""


class What(Enum):
    """What is collected: moments; the energy of the residual alone; the gram of what residuals of random signs ask, over a few samples."""

    MOMENTS = auto()
    RESIDUAL = auto()
    PROBE = auto()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ask:
    """The moments of one contraction.

    node: its label. input: the tensor that it reads in the pruned model. aim: what it should reproduce of the original model, None for the
    moments of the input alone. axis: the channel axis of its output. renew: take from the original only what the activation behind can
    tell apart. with_gram: False where the gram is known already. positions: about so many output positions of a sample of a convolution,
    drawn anew for every chunk; None for all. channels: those of the input that count; the moments are of them alone. None for all.
    every: take one chunk of each half of so many, as long as there is one. what: moments, or less. back: with this, the target is what the
    residual of a reader asks of the contraction; node, aim and axis are that reader's, kernel and input the contraction's. See `adjoint`.
    """

    node: str
    kernel: Kernel
    input: str
    aim: Aim | None = None
    axis: int = 1
    renew: bool = False
    with_gram: bool = True
    positions: int | None = None
    channels: Int64 | None = None
    every: int = 1
    what: What = What.MOMENTS
    back: Adjoint | None = None

    def taken(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return what becomes of the shape of an input."""
        axis = self.kernel.input_axis % len(shape)
        count = shape[axis] if self.channels is None else len(self.channels)
        return (*shape[:axis], count, *shape[axis + 1 :])

    def source(self, x: Array) -> Array:
        """Return the channels of the input that count."""
        return x if self.channels is None else x.take(self.channels, axis=self.kernel.input_axis)


class Lockstep(Protocol):
    """One run of the models through the data; use as a context."""

    def advance(self, position: int, also: Sequence[str] = ()) -> None:
        """Move the pruned model on to `position`, counted in nodes, and hold the tensors `also` that come later."""

    def advance_original(self, position: int, also: Sequence[str]) -> None:
        """Move the original model on to `position`, and hold the tensors `also`."""

    def override(self, use: Use, value: Array) -> None:
        """From now on the pruned model has this constant there."""

    def collect(self, ask: Ask) -> list[Sums]:
        """Return the sums over the even and over the odd chunks (over all, if there is only one chunk)."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Executor(Protocol):
    """Runs models on data."""

    def begin(self, network: Network, data: Calibration, running: Running, memory: int, *, paired: bool) -> Lockstep:
        """Start at the inputs of `network`; `paired`: with the original model alongside. memory: bytes of activations to hold."""


@dataclass(frozen=True, slots=True)
class Local:
    """This process."""

    def begin(self, network: Network, data: Calibration, running: Running, memory: int, *, paired: bool) -> Lockstep:
        """See `Executor`."""
        return Streams(network, data, running, memory, paired=paired)


class Streams:
    """`Lockstep` over the chunks of `data`, which are those from number `first` on of `total` in all (None: there are no others)."""

    def __init__(
        self,
        network: Network,
        data: Calibration,
        running: Running,
        memory: int,
        *,
        paired: bool,
        first: int = 0,
        total: int | None = None,
    ) -> None:
        self._open = ExitStack()
        store = self._open.enter_context(Store(int(SHARE * memory)))
        self._current = Stream(network, data, store, running)
        self._original = Stream(network, data, store, running) if paired else None
        self._running = running
        self._first, self._threads = first, running.threads or os.cpu_count() or 1
        self._total = self._current.chunks if total is None else total
        self._halves, self._most = min(2, self._total), self._total * data.chunk

    def advance(self, position: int, also: Sequence[str] = ()) -> None:
        """See `Lockstep`."""
        self._current.advance(position, also)

    def advance_original(self, position: int, also: Sequence[str]) -> None:
        """See `Lockstep`."""
        assert self._original is not None, "the original model does not run alongside"
        self._original.advance(position, also)

    def override(self, use: Use, value: Array) -> None:
        """See `Lockstep`."""
        self._current.override(use, value)

    def collect(self, ask: Ask) -> list[Sums]:
        """See `Lockstep`."""
        if ask.what is What.RESIDUAL:
            return [*self._collected(ask, [Energies(ask.kernel) for _ in range(self._halves)], ())]
        if ask.what is What.PROBE:
            return [*self._collected(ask, [Collector(ask.kernel) for _ in range(self._halves)], ())]
        shape = self._current.shape_of(ask.input)
        sampled = drawn(ask, shape, 0) is not None
        if self._thin(ask, shape):
            return [*self._collected(ask, [RowCollector(ask.kernel) for _ in range(self._halves)], shape)]
        sums = [Collector(ask.kernel, with_gram=ask.with_gram, sampled=sampled) for _ in range(self._halves)]
        return [*self._collected(ask, sums, shape)]

    def _thin(self, ask: Ask, shape: Sequence[int]) -> bool:
        """True if all rows of all shards together are fewer numbers than the gram."""
        return ask.kernel.wide(shape[-1]) and self._most * prod(shape[1:-1]) < shape[-1]

    def _collected(self, ask: Ask, halves: Sequence[Part], shape: tuple[int, ...]) -> Sequence[Part]:
        locks = [Lock() for _ in halves]

        def worked(number: int, x: Array, target: Array | None, positions: Int64 | None) -> None:
            half, lock = halves[number % self._halves], locks[number % self._halves]
            found = half.products(ask.source(x), target, positions)
            with lock:  # sums do not depend on the order
                half.take(found, ask.taken(shape or x.shape))

        def jobs() -> Iterator[tuple[int, Array, Array | None, Int64 | None]]:
            for number, have, wanted, asked in self._sent_back(ask):  # only the target goes on from here
                if ask.what is not What.MOMENTS:
                    yield number, _residual(ask, have, wanted) if asked is None else asked, None, None
                    continue
                positions = drawn(ask, shape, number)
                sent = asked if asked is None or positions is None else at(asked, positions)
                target = _target(ask, have, wanted, positions) if sent is None else sent
                yield number, have[ask.input], target, positions

        for _ in alongside(worked, jobs(), self._threads):
            pass
        return halves

    def _sent_back(self, ask: Ask) -> Iterator[tuple[int, Mapping[str, Array], Mapping[str, Array], Array | None]]:
        """Chunk by chunk: its number, what the pruned and the original model have to say, what the reader asks of the contraction."""
        back = ask.back
        if back is None:
            yield from ((number, have, wanted, None) for number, have, wanted in self._chunks(ask))
            return
        session = self._running.session(ModelProto.FromString(back.model), self._running.threads, None)
        for number, have, wanted in self._chunks(ask):
            residual = _residual(ask, have, wanted)
            residual = _signs(residual.shape, number) if ask.what is What.PROBE else residual
            yield (
                number,
                have,
                wanted,
                session.run({OUTPUT: have[back.output], RESIDUAL: residual}, [GRADIENT])[GRADIENT],
            )

    def _chunks(self, ask: Ask) -> Iterator[tuple[int, Mapping[str, Array], Mapping[str, Array]]]:
        aim, chosen = ask.aim, self._chosen(ask)
        numbers = [self._first + chunk for chunk in chosen]
        if aim is None:
            found = zip(numbers, self._current.read([ask.input], chosen), strict=True)
            yield from ((number, chunk, {}) for number, chunk in found)
            return
        assert self._original is not None, "the original model does not run alongside"
        compared = ask.renew or ask.what is What.RESIDUAL or ask.back is not None
        mine = [
            *([ask.input] if ask.what is What.MOMENTS else []),
            *([aim.other] if aim.other is not None else []),
            *([aim.tensor] if compared else []),
        ]
        mine += [ask.back.output] if ask.back is not None else []
        yield from zip(
            numbers, self._current.read(mine, chosen), self._original.read([aim.tensor], chosen), strict=True
        )

    def _chosen(self, ask: Ask) -> list[int]:
        """Which of the chunks here count."""
        every = self._total // 2 if ask.what is What.PROBE else min(ask.every, self._total // 2)
        numbers = range(self._first, self._first + self._current.chunks)
        return [number - self._first for number in numbers if number // 2 % max(1, every) == 0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of everything that is held."""
        self._open.close()


def drawn(ask: Ask, input_shape: Sequence[int], chunk: int) -> Int64 | None:
    """Return the output positions of chunk number `chunk` that count, the same whenever they are asked for; None for all."""
    if ask.positions is None or ask.kernel.kind not in CONVOLUTIONS:
        return None
    total = output_positions(ask.kernel, input_shape)
    if drawn_share(ask.kernel, total, ask.positions) == 1.0:
        return None
    return sample_positions(total, ask.positions, np.random.default_rng([total, ask.positions, chunk]))


def drawn_share(kernel: Kernel, total: int, positions: int | None) -> float:
    """Return which share of the `total` output positions of a sample counts, where about `positions` are asked for."""
    if positions is None or kernel.kind not in CONVOLUTIONS or total < WORTH * positions:
        return 1.0
    return positions / total


def _target(ask: Ask, have: Mapping[str, Array], wanted: Mapping[str, Array], positions: Int64 | None) -> Array | None:
    """What the contraction should put out for one chunk."""
    aim = ask.aim
    if aim is None:
        return None

    def rows_of(tensor: Array) -> Array:
        return tensor if positions is None else at(tensor, positions)

    value = rows_of(wanted[aim.tensor])
    if ask.renew:
        value = aim.seen(value, rows_of(have[aim.tensor]))
    return aim.target(value, None if aim.other is None else rows_of(have[aim.other]), ask.axis)


def _residual(ask: Ask, have: Mapping[str, Array], wanted: Mapping[str, Array]) -> Array:
    """What the contraction puts out short of its aim, as far as the activation behind can tell."""
    aim = ask.aim
    assert aim is not None, "a residual is short of an aim"
    current = have[aim.tensor].astype(np.float32, copy=False)
    wish = wanted[aim.tensor].astype(np.float32, copy=False)
    if aim.flat is not None:
        wish = aim.seen(wish, current).astype(np.float32, copy=False)
    scale = aim.scale.astype(np.float32).reshape([-1 if axis == ask.axis else 1 for axis in range(current.ndim)])
    return np.asarray((wish - current) / scale)


def _signs(shape: Sequence[int], chunk: int) -> Array:
    """Random signs, the same for a chunk whenever they are asked for."""
    return np.random.default_rng([*shape, chunk]).choice(np.array((-1, 1), np.float32), shape)


def united(halves: Sequence[Sums]) -> Sums:
    """Return the sums over all chunks."""
    whole = halves[0].empty()
    for half in halves:
        whole.merge(half)
    return whole
