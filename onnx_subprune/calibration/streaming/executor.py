"""Where moments come from: the original and the pruned model, advancing together over the calibration data.

The walk says what it wants to know (`Request`) and when the models move on; where the data lie and the models run is an `Executor`'s
business. Here they run in this process (`Local`); a cluster runs one `Streams` for every shard of the data and adds up what they
collect. Chunks are told apart by their number in the whole data, and the sums do not depend on order, so every executor gives
the same bytes.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import prod
from threading import Lock
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from onnx_subprune._typing import Array, Int64
from onnx_subprune.calibration.data.masks import Visible
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.moments.accumulator import Collector
from onnx_subprune.calibration.moments.energies import Energies
from onnx_subprune.calibration.moments.halves import Collected, Halves
from onnx_subprune.calibration.moments.regression import Sums
from onnx_subprune.calibration.moments.rows import RowCollector
from onnx_subprune.calibration.streaming.questions import Greatest
from onnx_subprune.calibration.streaming.request import Answers, Beside, Pair, Request, Sampling, Share, drawn
from onnx_subprune.calibration.streaming.settings import Running
from onnx_subprune.calibration.streaming.stream import Stream
from onnx_subprune.calibration.streaming.target import Cut, Original
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.content_sizes import sized_by_content
from onnx_subprune.graph.network import Network
from onnx_subprune.runtime.spill import Store
from onnx_subprune.runtime.threads import alongside, threads_each


class _Adder(Sums, Protocol):
    """Adds up what `products` makes of chunks."""

    def products(self, x: Array, target: Array | None, positions: Int64 | None, *, threads: int) -> Any: ...

    def take(self, found: Any, shape: Sequence[int]) -> None: ...


SHARE = 1 / 5
"""The part of the memory that activations may always hold: moments, factorizations and what is worked on take the rest."""
SPARE = 5 / 8
"""They may hold more while the process takes less than this part."""
CEILING = 3 / 4
"""Above this part, memory that is free goes back to the system: getting it again takes as long as computing what lies in it."""


class Lockstep(Protocol):
    """One run of the models through the data; use as a context."""

    def advance(self, position: int, also: Sequence[str] = ()) -> None:
        """Move the pruned model on to `position`, counted in nodes, and hold the tensors `also` that come later."""

    def advance_original(self, position: int, also: Sequence[str]) -> None:
        """Move the original model on to `position`, and hold the tensors `also`."""

    def override(self, use: Use, value: Array) -> None:
        """From now on the pruned model has this constant there."""

    def cut(self, cut: Cut) -> None:
        """From now on the pruned model has these channels of a group alone; all that makes and reads them lies ahead.

        Constants are still given whole.
        """

    def collect(self, request: Request) -> Collected:
        """Return what the chunks have to say, half by half."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Executor(Protocol):
    """Runs models on data."""

    def begin(
        self, network: Network, data: Calibration, running: Running, memory: int, *, original: Original | None
    ) -> Lockstep:
        """Start at the inputs of `network`, which is to be pruned, with `original` alongside. memory: bytes to keep to."""


@dataclass(frozen=True, slots=True)
class Local:
    """This process."""

    def begin(
        self, network: Network, data: Calibration, running: Running, memory: int, *, original: Original | None
    ) -> Lockstep:
        """See `Executor`."""
        return Streams(network, data, running, memory, original=original)


class Streams:
    """`Lockstep` over the chunks of `data`, which are those from number `first` on of `total` in all (None: there are no others)."""

    def __init__(
        self,
        network: Network,
        data: Calibration,
        running: Running,
        memory: int,
        *,
        original: Original | None,
        first: int = 0,
        total: int | None = None,
    ) -> None:
        self._open = ExitStack()
        limits = (int(part * memory) for part in (SHARE, SPARE, CEILING))
        store = self._open.enter_context(Store(*limits))
        self._current = Stream(network, data, store, running)
        self._original = None if original is None else Beside(original, Stream(original.network, data, store, running))
        self._running, self._visible = running, Visible(data, running.mask)
        self._ragged, self._sized = data.ragged, sized_by_content(network)
        self._first = first
        self._total = self._current.chunks if total is None else total
        self._halves, self._most = min(2, self._total), self._total * data.chunk

    def advance(self, position: int, also: Sequence[str] = ()) -> None:
        """See `Lockstep`."""
        self._current.advance(position, also)

    def advance_original(self, position: int, also: Sequence[str]) -> None:
        """See `Lockstep`."""
        assert self._original is not None, "the original model does not run alongside"
        self._original.stream.advance(self._original.model.place(position), also)

    def override(self, use: Use, value: Array) -> None:
        """See `Lockstep`."""
        self._current.override(use, value)

    def cut(self, cut: Cut) -> None:
        """See `Lockstep`."""
        self._current.cut(cut)

    def bring(self, share: Share) -> list[int]:
        """Let some of the chunks come to where the models are; return which. To ask about them does that first."""
        chosen = share.chunks(self._first, self._current.chunks, self._total)
        self._current.bring(chosen)
        if share.beside:
            assert self._original is not None, "the original model does not run alongside"
            self._original.stream.bring(chosen)
        return chosen

    def collect(self, request: Request) -> Collected:
        """See `Lockstep`."""
        kernel, question = request.kernel, request.question
        if (kind := question.sums) is not None:
            return self._collected(request, [kind(kernel) for _ in range(self._halves)], ())
        ragged = self._ragged or request.input in self._sized
        if ragged:  # positions would be drawn of one size
            request = replace(request, sampling=replace(request.sampling, positions=None))
        self.bring(request.share)
        shape = self._current.shape_of(request.input)
        sampled = drawn(request, shape, 0) is not None
        if not ragged and self._thin(request, shape):
            return self._collected(request, [RowCollector(kernel) for _ in range(self._halves)], shape)
        gram = question.with_gram
        sums = [Collector(kernel, with_gram=gram, sampled=sampled, ragged=ragged) for _ in range(self._halves)]
        return self._collected(request, sums, shape)

    def _thin(self, request: Request, shape: Sequence[int]) -> bool:
        """True if all rows of all shards together are fewer numbers than the gram."""
        rows = max(1, self._running.rows.get(request.input, 1)) * prod(shape[1:-1])
        return request.kernel.wide(shape[-1]) and self._most * rows < shape[-1]

    def _collected(self, request: Request, halves: Sequence[_Adder], shape: tuple[int, ...]) -> Collected:
        chosen = self.bring(request.share)
        side = self._current.side_by_side(len(chosen))
        threads = threads_each(self._running.threads, side)
        pair = Pair(current=self._current, original=self._original, running=self._running, visible=self._visible)
        answers = Answers(request, pair, chosen, side, shape)
        beside = [Energies(request.kernel) for _ in halves]
        locks = [Lock() for _ in halves]

        def worked(chunk: int) -> None:
            number = self._first + chunk
            half, lock = halves[number % self._halves], locks[number % self._halves]
            terms = answers.terms(chunk, number)
            found = half.products(terms.input, terms.target, terms.positions, threads=threads)
            with lock:  # sums do not depend on the order
                half.take(found, terms.input.shape)
                if terms.residual is not None:
                    beside[number % self._halves].add(terms.residual)

        for _ in alongside(worked, ((chunk,) for chunk in chosen), side):
            pass
        return Collected(tuple(halves), tuple(beside) if request.question.residuals else ())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of everything that is held."""
        self._open.close()


def active(models: Lockstep, request: Request, halves: Halves) -> Halves:
    """Return `halves`, the answer to `request`, each knowing which of its inputs are active in the others, and in data that the request passes over.

    All data are looked at only where some channel seems to be dead.
    """
    squares, taps = np.sum([part.squares for part in halves.parts], axis=0), request.kernel.taps
    groups, p = squares.shape
    seen = squares.reshape(groups, p // taps, taps).any(axis=2)
    if request.partial and not seen.all():
        everywhere = replace(request, question=Greatest(), sampling=Sampling())
        peaks = models.collect(everywhere).whole().energy.reshape(seen.shape)
        squares = np.where(squares > 0.0, squares, np.repeat(peaks, taps, axis=1))
    return halves.map(lambda part: part.active(squares))
