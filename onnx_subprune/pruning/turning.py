"""The same function in another form, which is pruned in place of the model that was given: in fewer steps, and with groups in bases in which they lose less."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from onnx_subprune.evaluation.checked import spread_feeds
from onnx_subprune.graph.costs.count import parameters
from onnx_subprune.graph.folding.fold import Folded, folded
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.rules.vocabulary import Rule
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.reconstruction.bases import turned_weights
from onnx_subprune.reconstruction.task import Task
from onnx_subprune.runtime.observing import observing

TOLERANCE, CLOSE = 1e-3, 1e-4
"""Most that an output may move by rounding, as a share of its norm, in another basis and in fewer steps; where it moves more, the model stays as it is."""


def shortened(task: Task, rules: Mapping[str, Rule], *, smaller: bool) -> tuple[Task, Folded]:
    """Return the task on the model in fewer steps, which takes less time to run, and what was folded.

    The task itself where there is nothing, or layers and groups would not be the same. smaller: it must not have more parameters either.
    """
    found, nothing = folded(task.network.given), Folded(model=task.network.given)
    if found.model is task.network.given:
        return task, nothing
    network = Network(found.model, task.network.folder)
    same = replace(_on(task, network, rules), given=task.network)
    layers = [[item.node for item in one.graph.contractions] for one in (task, same)]
    alike = layers[0] == layers[1] and _widths(same) == _widths(task)
    if not alike or (smaller and parameters(network) > parameters(task.network)):
        return task, nothing
    return (same, found) if _equal(task, network, CLOSE) else (task, nothing)


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


def _equal(task: Task, other: Network, tolerance: float = TOLERANCE) -> bool:
    """True if both models put out the same on some of the data."""
    names = list(task.graph.observation.judged)
    both = [observing(network.proto, names, network.folder) for network in (task.network, other)]
    for feeds in spread_feeds(task.data):
        before, after = (session.run(feeds, names) for session in both)
        for name in names:
            reference = before[name].astype(np.float64)
            if not np.linalg.norm(after[name].astype(np.float64) - reference) <= tolerance * np.linalg.norm(reference):
                return False
    return True
