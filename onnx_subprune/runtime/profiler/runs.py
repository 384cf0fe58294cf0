"""Runs of models with and without onnxruntime's profile."""

import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from .wire import number_of, text_of

RUNS, MOST, SECONDS = 4, 16, 0.1
"""Runs that are timed, after one that is not, and how many in so many seconds; the shortest counts, for nothing but other work makes a run longer."""
RESOLUTION = 1e-5
"""Seconds that a clock must tell apart."""
CHAIN = 33
"""Nodes of a model that tells what nodes take which do nothing."""
Feeds = Mapping[str, np.ndarray]
Row = dict[str, Any]
"""What the table's JSON is made of."""


class Runs:
    """How models run: threads, the folder of their side files, and execution providers with their options, the processor last."""

    def __init__(
        self, threads: int, folder: Path | None = None, providers: Sequence[tuple[str, dict[str, str]]] = ()
    ) -> None:
        self.threads, self.folder = threads, folder
        self.providers = [*providers, ("CPUExecutionProvider", dict[str, str]())]
        self.spent = 0.0
        """Milliseconds of all runs so far."""
        exact = time.get_clock_info("process_time").resolution < RESOLUTION
        own = threads == 1 and len(self.providers) == 1 and exact
        self._clock = time.process_time if own else time.perf_counter

    def session(self, text: bytes, *, plain: bool = False, profile: Path | None = None) -> ort.InferenceSession:
        """Return a session for a serialized model; plain: without optimizations, on the processor."""
        options = ort.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads, options.inter_op_num_threads = 4, self.threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if self.folder is not None:
            folder = str(self.folder.resolve())
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
        if plain:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        return ort.InferenceSession(text, options, providers=self.providers[-1:] if plain else self.providers)

    def timed(self, session: ort.InferenceSession, feeds: Feeds) -> float:
        """Milliseconds of a run: of the processor, where one thread and no other device does all."""
        start = self._clock()
        session.run(None, dict(feeds))
        found = (self._clock() - start) * 1e3
        self.spent += found
        return found

    def profiled(
        self, text: bytes, feeds: Feeds, *, plain: bool = False, seconds: float = SECONDS, most: float = math.inf
    ) -> list[Row]:
        """Return the nodes that ran: name, op, the shortest milliseconds and those of all runs, input and output shapes; plain: see `session`.

        seconds: how long more than the fewest runs may take. most: milliseconds after which there is no further run in any case, but for the first two.
        """
        stop = self.spent + most
        with tempfile.TemporaryDirectory() as scratch:
            session = self.session(text, plain=plain, profile=Path(scratch) / "profile")
            self.timed(session, feeds)
            count, end = 0, time.perf_counter() + seconds
            while not plain and (
                count == 0 or (self.spent < stop and (count < RUNS or (count < MOST and time.perf_counter() < end)))
            ):
                self.timed(session, feeds)
                count += 1
            written = Path(session.end_profiling()).read_text(encoding="utf-8")
        try:
            events = json.loads(written)
        except ValueError as error:
            raise OSError(
                f"the profile in {tempfile.gettempdir()} is cut short: set TMPDIR to a folder with more room"
            ) from error
        found: dict[str, Row] = {}
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                name, args = event["name"][: -len("_kernel_time")], event["args"]
                shapes: list[list[list[int]]] = [
                    [next(iter(item.values()), []) for item in args.get(f"{side}_type_shape", [])]
                    for side in ("input", "output")
                ]
                new = {
                    "name": name,
                    "op": args["op_name"],
                    "ms": event["dur"] / 1e3,
                    "all": [],
                    "inputs": shapes[0],
                    "outputs": shapes[1],
                }
                old = found.setdefault(name, new)
                old["ms"] = min(old["ms"], event["dur"] / 1e3)
                old["all"].append(event["dur"] / 1e3)
        return list(found.values())

    def shortest(self, text: bytes, feeds: Feeds) -> float:
        """Milliseconds of a run without the profile; see `timed`."""
        session = self.session(text)
        return min(self.timed(session, feeds) for _ in range(MOST // 2))


def least(runs: Runs) -> tuple[float, float, float]:
    """Return the milliseconds that a node takes to be noted down, a node to be run, and a run, where nodes do next to nothing."""
    one, many = _chain(1), _chain(CHAIN)
    feeds = {"0": np.ones(1, np.float32)}
    noted = min(map(sum, zip(*(event["all"] for event in runs.profiled(many, feeds)), strict=True))) / CHAIN
    single = runs.shortest(one, feeds)
    node = max(0.0, runs.shortest(many, feeds) - single) / (CHAIN - 1)
    return noted, node, single


def _chain(count: int) -> bytes:
    """A model of so many nodes, one behind the other, on a single number."""
    names = [str(place) for place in range(count + 1)]
    nodes = [
        text_of(1, text_of(1, source), text_of(2, made), text_of(3, f"node {made}"), text_of(4, "Neg"))
        for source, made in pairwise(names)
    ]
    kind = text_of(2, text_of(1, number_of(1, 1), text_of(2, text_of(1, number_of(1, 1)))))
    ports = text_of(11, text_of(1, names[0]), kind), text_of(12, text_of(1, names[-1]), kind)
    return (
        number_of(1, 8) + text_of(7, *nodes, text_of(2, "chain"), *ports) + text_of(8, text_of(1, ""), number_of(2, 13))
    )
