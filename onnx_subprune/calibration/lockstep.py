"""Where moments come from: the original and the pruned model, advancing together over the calibration data.

The walk says what it wants to know (`Ask`) and when the models move on; where the data lie and the models run is an `Executor`'s
business. Here they run in this process (`Local`); a cluster runs one `Streams` for every shard of the data and adds up what they
collect. Chunks are told apart by their number in the whole data, and the sums do not depend on order, so every executor gives
the same bytes.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.calibration.collector import Collector
from onnx_subprune.calibration.kernel import Kernel
from onnx_subprune.calibration.store import Store
from onnx_subprune.calibration.stream import Running, Stream
from onnx_subprune.calibration.targets import Aim
from onnx_subprune.data import Calibration
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.model import Network

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ask:
    """The moments of one contraction.

    node: its label. input: the tensor that it reads in the pruned model. aim: what it should reproduce of the original model, None for the
    moments of the input alone. axis: the channel axis of its output. renew: take from the original only what the activation behind can
    tell apart. with_gram: False where the gram is known already.
    """

    node: str
    kernel: Kernel
    input: str
    aim: Aim | None = None
    axis: int = 1
    renew: bool = False
    with_gram: bool = True


class Lockstep(Protocol):
    """One run of the models through the data; use as a context."""

    def advance(self, position: int) -> None:
        """Move the pruned model on to `position`, counted in nodes."""

    def advance_original(self, position: int, also: Sequence[str]) -> None:
        """Move the original model on to `position`, and hold the tensors `also`."""

    def override(self, use: Use, value: Array) -> None:
        """From now on the pruned model has this constant there."""

    def collect(self, ask: Ask) -> list[Collector]:
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
        store = self._open.enter_context(Store(memory))
        self._current = Stream(network, data, store, running)
        self._original = Stream(network, data, store, running) if paired else None
        self._first = first
        self._halves = min(2, self._current.chunks if total is None else total)

    def advance(self, position: int) -> None:
        """See `Lockstep`."""
        self._current.advance(position)

    def advance_original(self, position: int, also: Sequence[str]) -> None:
        """See `Lockstep`."""
        assert self._original is not None, "the original model does not run alongside"
        self._original.advance(position, also)

    def override(self, use: Use, value: Array) -> None:
        """See `Lockstep`."""
        self._current.override(use, value)

    def collect(self, ask: Ask) -> list[Collector]:
        """See `Lockstep`."""
        halves = [Collector(ask.kernel, with_gram=ask.with_gram) for _ in range(self._halves)]
        for number, (source, target) in enumerate(self._pairs(ask), self._first):
            halves[number % self._halves].add(source, target)
        return halves

    def _pairs(self, ask: Ask) -> Iterator[tuple[Array, Array | None]]:
        """Input and target, chunk by chunk."""
        aim = ask.aim
        if aim is None:
            yield from ((chunk[ask.input], None) for chunk in self._current.read([ask.input]))
            return
        assert self._original is not None, "the original model does not run alongside"
        mine = [ask.input, *([aim.other] if aim.other is not None else []), *([aim.tensor] if ask.renew else [])]
        for wanted, have in zip(self._original.read([aim.tensor]), self._current.read(mine), strict=True):
            value = aim.seen(wanted[aim.tensor], have[aim.tensor]) if ask.renew else wanted[aim.tensor]
            yield have[ask.input], aim.target(value, have[aim.other] if aim.other is not None else None, ask.axis)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of everything that is held."""
        self._open.close()


def united(halves: Sequence[Collector]) -> Collector:
    """Return the sums over all chunks."""
    whole = Collector(halves[0].contraction)
    for half in halves:
        whole.merge(half)
    return whole
