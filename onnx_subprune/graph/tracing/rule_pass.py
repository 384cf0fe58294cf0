"""One pass of the rules over the nodes of a model: what coincides and what is pinned, because no rule mentions it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnx_subprune._typing import Int64
from onnx_subprune.graph.channels import Axis
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.observation import Observation
from onnx_subprune.graph.operators import key_of
from onnx_subprune.graph.order import captured
from onnx_subprune.graph.rules.coordinates import Classes, Labels
from onnx_subprune.graph.rules.elementwise import POSITIONWISE
from onnx_subprune.graph.rules.reshape import KEEPING
from onnx_subprune.graph.rules.vocabulary import Findings, Rule, Scope, UnknownError
from onnx_subprune.graph.tracing.reasons import chosen_by, mixing, unknown
from onnx_subprune.graph.tracing.shared import tie_shared

VARYING = "its size varies from run to run"


@dataclass(frozen=True, slots=True)
class Labelling:
    """The outcome of a pass.

    starts: first coordinate and size of each axis.
    """

    findings: Findings
    classes: Classes
    starts: Mapping[Axis, tuple[int, int]]

    def ids(self, axis: Axis) -> Int64:
        """Return the coordinates of `axis`."""
        start, size = self.starts[axis]
        return np.arange(start, start + size)

    def free(self, axis: Axis) -> bool:
        """True if no coordinate of `axis` is pinned."""
        return axis not in self.starts or self.classes.free(self.ids(axis))


def run_rules(
    network: Network,
    observation: Observation,
    rules: Mapping[str, Rule],
    fixed: Mapping[Axis, str],
    hopeless: frozenset[Axis] | None,
    beyond: frozenset[Axis] | None = None,
) -> Labelling:
    """Apply the rules to all nodes.

    fixed: axes that must keep their size, and the label of the node that computes with it.
    hopeless: axes known to be pinned, which no axis that is split follows; None to find out what is pinned.
    beyond: the same where products of activations may lose what they sum over; None where they may not.
    """
    labels, findings = Labels(), Findings()
    for value in network.inputs:
        _pin_tensor(network, observation, labels, value.name, f"{value.name!r} is an input of the model")
    for name in network.outputs:
        _pin_tensor(network, observation, labels, name, f"{name!r} is an output of the model")
    for axis, label in fixed.items():
        size = observation.shapes[axis.tensor][axis.index]
        labels.pin(labels.axis(axis, size), f"its size enters a computation at {label}")
    for index, node in enumerate(network.nodes):
        if not network.constants.issuperset(name for name in node.output if name):
            scope = Scope(network, observation, index, labels, findings, hopeless, beyond)
            _apply(scope, rules.get(key_of(node)))
    tie_shared(network, labels, findings.contractions)
    starts = {axis: (start, size) for axis, start, size in labels.axes}
    return Labelling(findings, labels.resolve(), starts)


def _pin_tensor(network: Network, observation: Observation, labels: Labels, name: str, reason: str) -> None:
    shape = observation.shapes.get(name)
    if shape is None and name in network.initializers:
        return  # its uses are told apart; see `shared`
    for index, size in enumerate(shape or ()):
        labels.pin(labels.axis(Axis(name, index), size), reason)


def _apply(scope: Scope, rule: Rule | None) -> None:
    """Run the rule of a node, then pin every axis that it did not mention."""
    node = scope.node
    for name in captured(node):
        reason = f"the body of {scope.label} ({key_of(node)}) reads it{chosen_by(scope.network, node)}"
        _pin_tensor(scope.network, scope.observation, scope.labels, name, reason)
    if rule is None:
        reason = unknown(scope.network, scope.label, node)
    else:
        reason = mixing(scope.label, node)
        mark = scope.labels.mark(), len(scope.findings.contractions), len(scope.findings.balances)
        try:
            rule.tie(scope)
        except UnknownError as why:
            scope.labels.forget(mark[0])
            del scope.findings.contractions[mark[1] :], scope.findings.balances[mark[2] :]
            scope.mentioned.clear()
            reason = f"it feeds or leaves {scope.label} ({key_of(node)}): {why}"
    if any(name and not _mentioned(scope, which) for which, name in enumerate(node.output[1:], 1)):
        scope.mentioned.clear()  # the rule speaks of the first output only, and this node has more
    keeps = key_of(node) in KEEPING or key_of(node) in POSITIONWISE
    for slot, name in enumerate(node.input):
        if name:
            _pin_rest(scope, True, slot, reason)
            _pin_varying(scope, name, keeps)
    for which, name in enumerate(node.output):
        if name:
            _pin_rest(scope, False, which, reason)
            _pin_varying(scope, name, keeps)


def _mentioned(scope: Scope, which: int) -> bool:
    shape = scope.observation.shapes.get(scope.node.output[which], ())
    return not shape or any(not is_input and place == which for is_input, place, _ in scope.mentioned)


def _pin_rest(scope: Scope, is_input: bool, place: int, reason: str) -> None:
    try:
        rank = len(scope.shape(place)) if is_input else len(scope.out_shape(place))
    except UnknownError:
        return
    for index in range(rank):
        if (is_input, place, index) not in scope.mentioned:
            ids = scope.input(place, index) if is_input else scope.output(index, place)
            scope.pin(ids, reason)


def _pin_varying(scope: Scope, name: str, keeps: bool) -> None:
    """Axes whose size varies from run to run stay where a rule could write down what hangs on the size of one run."""
    for index in () if keeps else scope.observation.varying_axes.get(name, ()):
        scope.pin(scope.labels.axis(Axis(name, index), scope.shape_of(name)[index]), VARYING)
