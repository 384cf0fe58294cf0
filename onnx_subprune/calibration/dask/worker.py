"""What runs on the workers of a cluster: each shard's models in lock-step, kept between the driver's questions.

The state of a shard is nothing but the commands that it was given. A worker that does not have them all says so (`Behind`), and the
driver sends all commands again: that is how a shard moves to another worker when its own is lost.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from distributed import Worker, WorkerPlugin, get_worker
from onnx import ModelProto
from threadpoolctl import threadpool_limits

from onnx_subprune.calibration.dask.messages import (
    Advance,
    AdvanceOriginal,
    Answer,
    Behind,
    Command,
    Message,
    Open,
    Override,
)
from onnx_subprune.calibration.moments.halves import Collected
from onnx_subprune.calibration.streaming.executor import Streams
from onnx_subprune.calibration.streaming.request import Request, Share
from onnx_subprune.calibration.streaming.settings import Opener, Running
from onnx_subprune.calibration.streaming.target import Cut, Original
from onnx_subprune.graph.network import Network
from onnx_subprune.runtime.placement import Placement
from onnx_subprune.runtime.providers import Provider
from onnx_subprune.runtime.session import Session
from onnx_subprune.runtime.weights import Model, source

SESSIONS = 4
"""Sessions that a worker keeps: shards that advance together share them."""


class Shards(WorkerPlugin):  # type: ignore[misc]  # distributed has no types
    """The shards that one driver has on this worker."""

    def __init__(self, name: str) -> None:
        self.name = name

    def setup(self, worker: Worker) -> None:
        """Begin; the linear algebra has one thread as long as this lasts, so that results do not depend on the number."""
        self._limits = threadpool_limits(1)
        self._lock = threading.Lock()
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._states: dict[tuple[str, int], _State] = {}

    def teardown(self, worker: Worker) -> None:
        """Let go of everything."""
        for run, _ in list(self._states):
            self.forget(run)
        self._limits.restore_original_limits()

    def forget(self, run: str) -> None:
        """Let go of one run through the model."""
        for key in [key for key in self._states if key[0] == run]:
            self._states.pop(key).close()

    def answer(self, message: Message) -> Answer:
        """Do as the message says."""
        key = (message.run, message.shard)
        state = self._states.get(key)
        if state is None or state.done < message.start:
            if message.start:
                return Behind((message.shard,))
            state = self._states[key] = _State(self._session)
        for command in message.commands[state.done - message.start :]:
            state.follow(command)
        return state.collect(message.request)

    def _session(
        self, model: Model | bytes, threads: int | None, folder: Path | None, providers: Sequence[Provider]
    ) -> Session:
        """An `Opener` that remembers."""
        text, apart = source(model)
        assert isinstance(text, bytes), "models come from memory"
        digest = hashlib.sha256(text + repr(providers).encode())
        for tensor in apart.values():
            digest.update(tensor.SerializeToString())
        key = digest.digest()
        with self._lock:
            if key not in self._sessions:
                self._sessions[key] = Session(
                    model if apart else text, threads=threads, folder=folder, providers=providers, part=True
                )
            self._sessions.move_to_end(key)
            while len(self._sessions) > SESSIONS:
                self._sessions.popitem(last=False)
            return self._sessions[key]


class _State:
    """One shard: its models, and how many commands they have followed."""

    def __init__(self, session: Opener) -> None:
        self._session = session
        self._streams: Streams | None = None
        self.done = 0

    def follow(self, command: Command) -> None:
        if isinstance(command, Open):
            self._streams = self._opened(command)
        else:
            assert self._streams is not None
            match command:
                case Advance():
                    self._streams.advance(command.position, command.also)
                case AdvanceOriginal():
                    self._streams.advance_original(command.position, command.also)
                case Override():
                    self._streams.override(command.use, command.value)
                case Cut():
                    self._streams.cut(command)
                case Share():
                    self._streams.bring(command)
        self.done += 1

    def _opened(self, command: Open) -> Streams:
        network = Network(ModelProto.FromString(command.model), command.folder)
        original = None
        if command.original is not None:
            text = command.original
            beside = Network(ModelProto.FromString(text), command.folder) if text else network
            original = Original(network=beside, left=command.left, places=command.places)
        return Streams(
            network,
            command.data.open(),
            Running(
                batch_size=command.batch_size,
                threads=command.threads,
                session=self._session,
                rows=command.rows,
                opaque=command.opaque,
                mask=command.mask,
                placement=Placement(calibrated=command.providers),
            ),
            command.memory,
            original=original,
            first=command.first,
            total=command.total,
        )

    def collect(self, request: Request) -> Collected:
        assert self._streams is not None
        return self._streams.collect(request)

    def close(self) -> None:
        if self._streams is not None:
            self._streams.close()


def step(message: Message) -> Answer:
    """Answer a message on the worker that this runs on."""
    plugin: Shards | None = get_worker().plugins.get(message.plugin)
    return plugin.answer(message) if plugin is not None else Behind((message.shard,))


def added(one: Answer, other: Answer) -> Answer:
    """Return the sums of both, or who was behind; a node of the tree."""
    if isinstance(one, Behind) or isinstance(other, Behind):
        behind = [item.shards for item in (one, other) if isinstance(item, Behind)]
        return Behind(tuple(shard for shards in behind for shard in shards))
    return one.joined(other)


def forget(plugin: str, run: str, dask_worker: Worker) -> None:
    """Let go of a run on `dask_worker`, which is the one that this runs on."""
    found = dask_worker.plugins.get(plugin)
    if found is not None:
        found.forget(run)
