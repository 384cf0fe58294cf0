"""The same model with heads in other bases, for the groups that lose less there: what is pruned then, in place of the model that was given."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from onnx_subprune.evaluation.checked import spread_feeds
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.rules.vocabulary import Rule
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.reconstruction.bases import turned_weights
from onnx_subprune.reconstruction.task import Task
from onnx_subprune.runtime.observing import observing

TOLERANCE = 1e-3
"""Most that an output may move by rounding, as a share of its norm; where it moves more, the model stays as it is."""


def turned(task: Task, rules: Mapping[str, Rule]) -> tuple[Task, frozenset[str]]:
    """Return the task on the model with other bases, and the names of the groups that have one; the task itself where none brings anything."""
    for grouped in (True, False):  # heads may be repeated in another order than one after another
        found, weights = turned_weights(task, grouped=grouped)
        if not found:
            return task, found
        network = Network(apply(task.network, task.graph, Plan(weights=weights), rules=rules), task.network.folder)
        same = _on(task, network, rules)
        if _widths(same) == _widths(task) and _equal(task, network):
            return same, found
    return task, frozenset()


def _on(task: Task, network: Network, rules: Mapping[str, Rule]) -> Task:
    """The task on a model of the same form."""
    graph = trace(network, rules=rules, example=task.data.example(), rows=bool(task.graph.observation.rows))
    left = {group.name for group in task.graph.groups}
    groups = tuple(group for group in graph.groups if group.name in left)
    return replace(task, network=network, graph=replace(graph, groups=groups, pinned=task.graph.pinned))


def _widths(task: Task) -> dict[str, int]:
    return {group.name: group.width for group in task.graph.groups}


def _equal(task: Task, other: Network) -> bool:
    """True if both models put out the same on some of the data."""
    names = list(task.graph.observation.judged)
    both = [observing(network.proto, names, network.folder) for network in (task.network, other)]
    for feeds in spread_feeds(task.data):
        before, after = (session.run(feeds, names) for session in both)
        for name in names:
            reference = before[name].astype(np.float64)
            if not np.linalg.norm(after[name].astype(np.float64) - reference) <= TOLERANCE * np.linalg.norm(reference):
                return False
    return True
