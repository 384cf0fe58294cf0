"""From a task to choices and weights: what is chosen beforehand, the walk through what that leaves, and its weights put back."""

from collections.abc import Sequence
from dataclasses import replace

from onnx_subprune.calibration.streaming.target import Original
from onnx_subprune.graph.channels import ChannelGroup, Use
from onnx_subprune.graph.contractions.ends import with_biases
from onnx_subprune.reconstruction.compaction import presliced
from onnx_subprune.reconstruction.gone import read_in, without_branches
from onnx_subprune.reconstruction.layer_by_layer import Walk
from onnx_subprune.reconstruction.products import measured, strongest
from onnx_subprune.reconstruction.settings import Reconstruction
from onnx_subprune.reconstruction.shared_groups import choose_apart, far_apart
from onnx_subprune.reconstruction.task import Task
from onnx_subprune.runtime.spill import Shelf


def reconstruct(task: Task) -> Reconstruction:
    """Walk through the model once; see the module."""
    task = without_branches(task)
    groups = [group for group in task.graph.groups if task.widths.get(group.name, group.width) < group.width]
    start = task.clock()
    multiplied = [group for group in groups if group.product is not None and group.name not in task.choices]
    if multiplied:
        task = measured(task)
        chosen_first = {group.name: strongest(task.strengths, group, task.widths[group.name]) for group in multiplied}
        task = replace(task, choices={**task.choices, **chosen_first})
    apart = [group for group in groups if far_apart(task.graph, group) and group.name not in task.choices]
    choices = choose_apart(task, apart) if apart else task.choices
    chosen = task.clock() - start
    found = _walked(replace(task, choices=choices), groups)
    return replace(found, seconds={**found.seconds, "calibrate": found.seconds["calibrate"] + chosen})


def _walked(task: Task, groups: Sequence[ChannelGroup]) -> Reconstruction:
    """Walk on what is left of the model after what has been chosen already."""
    multiplied = [group for group in groups if group.product is not None]
    touched = frozenset(use.node for group in multiplied for part in group.silencers if (use := part.axis.use))
    original = Original(network=task.network) if task.formulation.repairs else None
    supports = {group.name: task.choices[group.name].support for group in groups if group.name in task.choices}
    products = [item.new_bias for item in task.graph.contractions if item.op == "MatMul"]
    sliced = presliced(task.network, task.graph, supports) if original is not None else None
    if sliced is None:
        with task.executor.begin(task.network, task.data, task.running, task.memory, original=original) as models:
            return Walk(task, groups, models, original=original, touched=touched).run()
    graph = with_biases(read_in(sliced.graph, task.gone), [use.node for use in products if use is not None])
    left = [group for group in graph.groups if task.widths.get(group.name, group.width) < group.width]
    smaller = replace(task, network=sliced.network, graph=graph, choices={})
    with task.executor.begin(sliced.network, task.data, task.running, task.memory, original=sliced.original) as models:
        found = Walk(smaller, left, models, sliced.lost, sliced.original, touched).run()
    weights = Shelf[Use](task.memory // 8)
    for use, value in found.weights.items():
        weights[use] = sliced.whole(use, value)
    return replace(found, choices={**task.choices, **found.choices}, weights=weights)
