"""Pruning over a cluster of dask.distributed: every formulation, the same bytes as here.

The data are cut into one shard a worker thread. Each worker keeps its shard's activations and advances the original and the pruned model
through them, as this process would. At every contraction the driver sends what has changed since the last one (the new weights)
and a question; the workers' moments are added up in a tree, in the order of the shards, and the sum comes back. So there is one
round a contraction, and a worker that is lost costs its own shard from the start, on another worker, and nothing else.
"""

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import numpy as np
from distributed import Client, Future, KilledWorker
from numpy.typing import NDArray

from onnx_subprune.calibration.dask.messages import Advance, AdvanceOriginal, Behind, Command, Message, Open, Override
from onnx_subprune.calibration.dask.providers import check_providers
from onnx_subprune.calibration.dask.shipment import Shipment
from onnx_subprune.calibration.dask.worker import Shards, added, forget, step
from onnx_subprune.calibration.data.reading import shard_of
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.moments.halves import Collected
from onnx_subprune.calibration.streaming.executor import Lockstep
from onnx_subprune.calibration.streaming.request import Request
from onnx_subprune.calibration.streaming.settings import Running
from onnx_subprune.calibration.streaming.target import Cut, Original
from onnx_subprune.errors import ClusterError, ModelError
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.network import Network
from onnx_subprune.runtime.weights import LIMIT

POLL = 0.5
"""Seconds between two looks at which workers are alive."""
ATTEMPTS = 10
"""Times that commands are sent before a worker is given up that is alive."""
PATIENCE = 60.0
"""Seconds to wait for a worker when there is none."""
REACHED = 10.0
"""Seconds in which a scheduler answers."""


class Cluster:
    """An `Executor` on the workers of `client`. lost: shards that had to start again on another worker, for whoever wants to know."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.plugin = f"onnx-subprune-{uuid.uuid4().hex}"
        self.lost: list[int] = []
        client.register_plugin(Shards(self.plugin))

    def close(self) -> None:
        """Let go of everything on the workers."""
        with contextlib.suppress(OSError, ValueError, TimeoutError):
            self.client.unregister_worker_plugin(self.plugin)

    def begin(
        self, network: Network, data: Calibration, running: Running, memory: int, *, original: Original | None
    ) -> Lockstep:
        """See `Executor`."""
        places = self.places()
        count = min(len(places), data.chunk_count)
        homes = places[:count]
        whole = network if original is None else original.network
        if whole.proto.ByteSize() > LIMIT:
            raise ModelError(
                "the model holds more than 2 GB of weights in memory: save it with its weights in a side file"
            )
        check_providers(self.client, running.placement.calibrated, homes)
        model = network.proto.SerializeToString()
        beside = b"" if whole is network else whole.proto.SerializeToString()
        neighbours = max(sum(urlsplit(other).hostname == urlsplit(home).hostname for other in homes) for home in homes)
        opens = []
        for number in range(count):
            shard = shard_of(data, number, count)
            opens.append(
                Open(
                    model=model,
                    folder=network.folder.resolve() if network.folder is not None else None,
                    data=Shipment.of(shard.data),
                    batch_size=running.batch_size,
                    rows=running.rows,
                    opaque=running.opaque,
                    mask=running.mask,
                    threads=running.threads or 1,
                    providers=running.placement.calibrated,
                    memory=memory // neighbours,
                    original=None if original is None else beside,
                    left={} if original is None else original.left,
                    places=() if original is None else original.places,
                    first=shard.first,
                    total=shard.chunks,
                )
            )
        return _Run(self, homes, opens)

    def places(self) -> list[str]:
        """Return the address of a worker for each of its threads, one of each worker first; ClusterError if there is none."""
        try:
            self.client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError as error:
            raise ClusterError("the cluster has no workers: start some with `dask worker ADDRESS`") from error
        threads: dict[str, int] = self.client.nthreads()
        turns = [(turn, address) for address, count in threads.items() for turn in range(count)]
        return [address for _, address in sorted(turns)]


@contextlib.contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """Connect to the scheduler at `address`; ClusterError if it cannot be reached."""
    client = Client.__new__(Client)
    try:
        client.__init__(address, timeout=REACHED, set_as_default=False)
    except Exception as error:  # those of the protocols have no common base
        client.status = "closed"  # or it waits for the scheduler once more as it is deleted
        raise ClusterError(
            f"no scheduler at {address}: start one with `dask scheduler` and give its address"
        ) from error
    with client:
        cluster = Cluster(client)
        try:
            yield cluster
        finally:
            cluster.close()


class _Run:
    """`Lockstep` over all shards. Commands wait here until there is a question."""

    def __init__(self, cluster: Cluster, homes: Sequence[str], opens: Sequence[Open]) -> None:
        self._cluster, self._homes, self._opens = cluster, list(homes), opens
        self._name = uuid.uuid4().hex
        self._log: list[Command] = []
        self._sent = [0] * len(homes)

    def advance(self, position: int, also: Sequence[str] = ()) -> None:
        """See `Lockstep`."""
        self._log.append(Advance(position, tuple(also)))

    def advance_original(self, position: int, also: Sequence[str]) -> None:
        """See `Lockstep`."""
        self._log.append(AdvanceOriginal(position, tuple(also)))

    def override(self, use: Use, value: NDArray[np.generic]) -> None:
        """See `Lockstep`."""
        self._log.append(Override(use, value))

    def cut(self, cut: Cut) -> None:
        """See `Lockstep`."""
        self._log.append(cut)

    def collect(self, request: Request) -> Collected:
        """See `Lockstep`."""
        self._move(self._gone())
        answers = [self._asked(shard, request) for shard in range(len(self._homes))]
        while True:
            root = self._tree(answers)
            again = self._waited(root)
            if not again:
                found = self._result(root)
                if not isinstance(found, Behind):
                    self._log.append(request.share)
                    return found
                again = found.shards
            self._move(again)
            for shard in again:
                answers[shard] = self._asked(shard, request)

    def _asked(self, shard: int, request: Request) -> Future:
        """Send a shard the commands that it has not seen, and the question; move it if its worker is gone meanwhile."""
        for _ in range(ATTEMPTS):
            try:
                return self._send(shard, request)
            except (OSError, KeyError, ValueError):  # what a worker causes that dies under the transfer
                time.sleep(POLL)
                if shard in self._gone():
                    self._move([shard])
        raise ClusterError(f"worker {self._homes[shard]} does not take data: look at its log")

    def _send(self, shard: int, request: Request) -> Future:
        client, home, start = self._cluster.client, self._homes[shard], self._sent[shard]
        commands: list[Command] = [self._opens[shard], *self._log][start:]
        message = Message(
            plugin=self._cluster.plugin, run=self._name, shard=shard, start=start, commands=commands, request=request
        )
        sent = client.scatter([message], workers=[home], hash=False)[0]
        self._sent[shard] = 1 + len(self._log)
        return client.submit(step, sent, workers=[home], pure=False)

    def _tree(self, answers: Sequence[Future]) -> Future:
        level = list(answers)
        while len(level) > 1:
            pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
            level = [
                self._cluster.client.submit(added, *pair, pure=False) if len(pair) == 2 else pair[0] for pair in pairs
            ]
        return level[0]

    def _waited(self, root: Future) -> tuple[int, ...]:
        """Wait for the answer; return the shards whose workers are gone, if there are such and it cannot come any more."""
        done = threading.Event()
        root.add_done_callback(lambda _: done.set())
        while not done.wait(POLL):
            if gone := self._gone():
                return gone
        return self._gone() if root.cancelled() else ()  # a question that lay with a worker is lost with it

    def _gone(self) -> tuple[int, ...]:
        living = self._cluster.client.nthreads()
        return tuple(shard for shard, home in enumerate(self._homes) if home not in living)

    def _move(self, shards: Sequence[int]) -> None:
        """Give these shards to the workers that have the fewest, from their start."""
        for shard in shards:
            self._cluster.lost.append(shard)
            places = list(dict.fromkeys(self._cluster.places()))
            self._homes[shard] = min(places, key=self._homes.count)
            self._sent[shard] = 0

    @staticmethod
    def _result(root: Future) -> Collected | Behind:
        try:
            found: Collected | Behind = root.result()
        except KilledWorker as error:
            raise ClusterError(
                "workers die again and again on the same shard: give them more memory, or use more of them"
            ) from error
        except CancelledError as error:
            raise ClusterError(f"the cluster gave up a question: {error}; look at the scheduler's log") from error
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        living = [home for home in dict.fromkeys(self._homes) if home in self._cluster.client.nthreads()]
        with contextlib.suppress(OSError, ValueError, TimeoutError):
            if living:
                self._cluster.client.run(forget, self._cluster.plugin, self._name, workers=living, on_error="ignore")
