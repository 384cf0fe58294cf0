"""Choices that are made before the walk, and what they leave of the inputs of a contraction."""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import replace

from onnx_subprune.calibration.moments.halves import Halves
from onnx_subprune.graph.channels import ChannelGraph, ChannelGroup, Use
from onnx_subprune.graph.contractions.reading import kernel_of
from onnx_subprune.reconstruction.columns import alive_columns, problem_of, weighed
from onnx_subprune.reconstruction.gate_importance import with_importance
from onnx_subprune.reconstruction.pooling import problems_of
from onnx_subprune.reconstruction.task import Task
from onnx_subprune.runtime.threads import aside
from onnx_subprune.selection import Choice, conditioning

SEEN = 128
"""Samples that a choice for many layers looks at: with twice as many, three residual networks had the same accuracy, within the noise."""


def choose_apart(task: Task, groups: Sequence[ChannelGroup]) -> dict[str, Choice]:
    """Choose groups whose consumers lie far apart, from the original activations of all of them, taken in one pass.

    Where many layers read a group, going backwards as well takes as long as the pass, and found nothing better; nor did more samples, but where
    units of a recurrent layer are chosen.
    """
    again = any(consumer.contraction.recurs for group in groups for consumer in group.consumers)
    task = with_importance(task, groups) if again else task.drafted()
    if task.formulation.repairs and not again:
        task = replace(task, data=task.data.about(SEEN))
    needed = {consumer.weight: consumer.contraction for group in groups for consumer in group.consumers}
    moments: dict[Use, Halves] = {}
    choices, waiting = dict(task.choices), [*groups]
    with aside(task.running.cores) as later:
        for done, (contraction, found) in enumerate(task.survey(list(needed.values()), times=1)):
            moments[contraction.weight] = found
            while waiting and all(consumer.weight in moments for consumer in waiting[0].consumers):
                later(_choose, task, waiting.pop(0), moments, choices)
            task.watch("surveying", done + 1, len(needed))
    return choices


def _choose(
    task: Task, group: ChannelGroup, moments: Mapping[Use, Halves], choices: MutableMapping[str, Choice]
) -> None:
    """Add the choice of `group` to `choices`."""
    problems, posed = [], problems_of(task.graph, group.consumers, moments)
    for consumer, halves in posed:
        kernel, weights = kernel_of(task.network, consumer.contraction)
        alive = alive_columns(task.graph, choices, consumer.contraction, kernel, weights)
        each = task.importance.get(consumer.weight)
        problems.append(problem_of(consumer, kernel, halves.whole.centered(), weights, alive, halves.shrinkage, each))
    counts = [halves.whole.count for _, halves in posed]
    problems = weighed(problems, [consumer for consumer, _ in posed], counts, task.importance)
    choice = task.choose(group, problems, [task.widths[group.name]])[0]
    data = 1.0 - max(moments[consumer.weight].shrinkage for consumer in group.consumers)
    choices[group.name] = replace(choice, conditioning=conditioning(problems, choice.support), data=data)


def far_apart(graph: ChannelGraph, group: ChannelGroup) -> bool:
    """True if the consumers of a group do not all read the same tensor, share their weight with others, or make the channels, a step later.

    So it is where a normalisation comes before them, which is the first to change.
    """
    if graph.normalized(group):
        return True
    shared = not all(graph.alone(consumer.weight) for consumer in group.consumers)
    shared = shared or any(consumer.contraction.recurs for consumer in group.consumers)
    return shared or len({consumer.contraction.input.tensor for consumer in group.consumers}) > 1
