"""Choices that are made before the walk, and what they leave of the inputs of a contraction."""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.calibration.alongside import aside
from onnx_subprune.calibration.equations import columns_of, problem_of
from onnx_subprune.calibration.kernel import Kernel
from onnx_subprune.calibration.regression import Regression
from onnx_subprune.graph.channels import Axis, ChannelGraph, ChannelGroup, Contraction
from onnx_subprune.selection import Choice, conditioning
from onnx_subprune.selection.ridge import Weights
from onnx_subprune.task import Asymmetric, Task, kernel_of

Mask = NDArray[np.bool_]

SEEN = 128
"""Samples that a choice for many layers looks at: with twice as many, three residual networks had the same accuracy, within the noise."""


def choose_apart(task: Task, groups: Sequence[ChannelGroup]) -> dict[str, Choice]:
    """Choose groups whose consumers lie far apart, from the original activations of all of them, taken in one pass.

    Where many layers read a group, going backwards as well takes as long as the pass, and found nothing better; nor did more samples.
    """
    task = task.drafted()
    if isinstance(task.formulation, Asymmetric):
        task = replace(task, data=task.data.about(SEEN))
    needed = {consumer.node: consumer.contraction for group in groups for consumer in group.consumers}
    moments: dict[str, Regression] = {}
    choices, waiting = dict(task.choices), [*groups]
    with aside(task.running.cores) as later:
        for done, (contraction, found) in enumerate(task.survey(list(needed.values()), times=1)):
            moments[contraction.node] = found
            while waiting and all(consumer.node in moments for consumer in waiting[0].consumers):
                later(_choose, task, waiting.pop(0), moments, choices)
            task.watch("surveying", done + 1, len(needed))
    return choices


def _choose(
    task: Task, group: ChannelGroup, moments: Mapping[str, Regression], choices: MutableMapping[str, Choice]
) -> None:
    """Add the choice of `group` to `choices`."""
    problems = []
    for consumer in group.consumers:
        kernel, weights = kernel_of(task.network, consumer.contraction)
        alive = alive_columns(task.graph, choices, consumer.contraction, kernel, weights)
        problems.append(problem_of(consumer, kernel, moments[consumer.node].centered(), weights, alive))
    choice = task.choose(group, problems, [task.widths[group.name]])[0]
    choices[group.name] = replace(choice, conditioning=conditioning(problems, choice.support))


def alive_columns(
    graph: ChannelGraph, choices: Mapping[str, Choice], contraction: Contraction, kernel: Kernel, weights: Weights
) -> Mask:
    """Mask (g * p,) of the columns whose channels have not been dropped."""
    alive = np.ones(weights.shape[0] * weights.shape[1], bool)
    alive[columns_of(dropped_channels(graph, choices, contraction.rows), kernel.taps)] = False
    return alive


def dropped_channels(graph: ChannelGraph, choices: Mapping[str, Choice], axis: Axis) -> NDArray[np.int64]:
    """Return the positions on `axis` that have been dropped."""
    found = [np.zeros(0, np.int64)]
    for group in graph.groups:
        if group.name in choices:
            gone = np.setdiff1d(np.arange(group.width), np.array(choices[group.name].support, np.int64))
            found += [part.positions[gone].ravel() for part in group.slices if part.axis == axis]
    return np.concatenate(found)


def far_apart(group: ChannelGroup) -> bool:
    """True if the consumers of a group do not all read the same tensor."""
    return len({consumer.contraction.input.tensor for consumer in group.consumers}) > 1
