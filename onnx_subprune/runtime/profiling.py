"""How long each node of a model takes, as onnxruntime's own profile says."""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx_subprune._typing import Array
from onnx_subprune.runtime.files import scratch
from onnx_subprune.runtime.session import Runnable

SUFFIX = "_kernel_time"
"""What the names of those events end in that are nodes at work."""


@dataclass(frozen=True, slots=True)
class NodeTime:
    """A node of the optimized model: its name there, its operator, and its median milliseconds."""

    name: str
    op: str
    milliseconds: float


def node_events(events: Sequence[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield of the events of a profile those of nodes at work, each with the name of its node."""
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(SUFFIX):
            yield event["name"].removesuffix(SUFFIX), event


def node_times(
    model: Runnable, feeds: Mapping[str, Array], *, runs: int = 5, threads: int | None = None
) -> tuple[NodeTime, ...]:
    """Return the median time of each node over `runs` runs, after one that is not counted, in the order of the first run."""
    with scratch() as folder:
        session = model.session(threads=threads, profile=folder / "profile")
        for _ in range(runs + 1):
            session.run(feeds)
        events = json.loads(session.end_profiling().read_text(encoding="utf-8"))
    found: dict[str, list[float]] = {}
    ops: dict[str, str] = {}
    for name, event in node_events(events):
        ops[name] = event["args"].get("op_name", "")
        found.setdefault(name, []).append(float(event["dur"]) / 1e3)
    return tuple(
        NodeTime(name, ops[name], statistics.median(times[len(times) // (runs + 1) :])) for name, times in found.items()
    )
