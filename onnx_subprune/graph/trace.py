"""From a model to its channel groups: run the rules, pin what no rule mentions, gather classes with the same footprint.

Two passes: the first finds what is pinned, so that in the second an axis that is split or merged follows the part that is free.
"""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto

from onnx_subprune.graph.channels import (
    Axis,
    ChannelGraph,
    ChannelGroup,
    Consumer,
    Contraction,
    IntArray,
    Pinned,
    Slice,
)
from onnx_subprune.graph.labels import Classes, Labels
from onnx_subprune.graph.model import Network, load
from onnx_subprune.graph.observation import Observation, observe
from onnx_subprune.graph.order import captured
from onnx_subprune.graph.rules import RULES
from onnx_subprune.graph.site import Findings, Rule, Scope, UnknownError
from onnx_subprune.graph.sizes import fixed_by_size, size_sources


def trace(model: ModelProto | Network | str | os.PathLike[str], *, rules: Mapping[str, Rule] = RULES) -> ChannelGraph:
    """Return the channel groups of `model`, its contractions, and what is pinned with the reasons.

    Raises ModelError if the model cannot be read or does not run.
    """
    network = load(model)
    observation = observe(network)
    sources = size_sources(network, observation)
    fixed = fixed_by_size(network, observation, rules, sources)
    explored = _pass(network, observation, rules, fixed, None)
    labelled = _pass(network, observation, rules, fixed, explored)
    return _gather(network, observation, labelled)


@dataclass(frozen=True, slots=True)
class _Labelled:
    labels: Labels
    findings: Findings
    classes: Classes
    starts: Mapping[Axis, tuple[int, int]]

    def ids(self, axis: Axis) -> IntArray:
        start, size = self.starts[axis]
        return np.arange(start, start + size)

    def free(self, axis: Axis) -> bool:
        return axis not in self.starts or self.classes.free(self.ids(axis))


def _pass(
    network: Network,
    observation: Observation,
    rules: Mapping[str, Rule],
    fixed: Mapping[Axis, str],
    before: _Labelled | None,
) -> _Labelled:
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
            scope = Scope(network, observation, index, labels, findings, before.free if before else None)
            _apply(scope, rules.get(node.op_type) if node.domain in ("", "ai.onnx") else None)
    classes = labels.resolve()
    return _Labelled(labels, findings, classes, {axis: (start, size) for axis, start, size in labels.axes})


def _pin_tensor(network: Network, observation: Observation, labels: Labels, name: str, reason: str) -> None:
    shape = observation.shapes.get(name)
    if shape is None and name in network.initializers:
        return  # its uses are told apart and cloned where they are sliced
    for index, size in enumerate(shape or ()):
        labels.pin(labels.axis(Axis(name, index), size), reason)


def _apply(scope: Scope, rule: Rule | None) -> None:
    """Run the rule of a node, then pin every axis that it did not mention."""
    node = scope.node
    reason = _mixing(scope.label, node)
    if rule is None:
        reason = f"{scope.label} ({node.op_type}) is an operator without a rule"
    else:
        known = scope.labels.ties, len(scope.findings.contractions), len(scope.findings.balances)
        try:
            rule.tie(scope)
        except UnknownError as unknown:
            scope.labels.forget(known[0])
            del scope.findings.contractions[known[1] :], scope.findings.balances[known[2] :]
            scope.mentioned.clear()
            reason = f"{scope.label} ({node.op_type}): {unknown}"
    unmentioned = [which for which, name in enumerate(node.output) if name and not _touched(scope, which)]
    if unmentioned and len([name for name in node.output if name]) > 1:
        scope.mentioned.clear()
    for slot, name in enumerate(node.input):
        if name:
            _pin_rest(scope, True, slot, reason)
    for which, name in enumerate(node.output):
        if name:
            _pin_rest(scope, False, which, reason)
    for name in captured(node):
        _pin_tensor(
            scope.network, scope.observation, scope.labels, name, f"the body of {scope.label} ({node.op_type}) reads it"
        )


def _touched(scope: Scope, which: int) -> bool:
    name = scope.node.output[which]
    shape = scope.observation.shapes.get(name, ())
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


MIXERS = {
    "LRN": "whose normalisation mixes channels",
    "LayerNormalization": "whose normalisation mixes channels",
    "RMSNormalization": "whose normalisation mixes channels",
    "MeanVarianceNormalization": "whose normalisation mixes channels",
    "LpNormalization": "whose normalisation mixes channels",
    "GroupNormalization": "whose normalisation mixes channels",
    "Softmax": "which mixes all positions of its axis",
    "LogSoftmax": "which mixes all positions of its axis",
    "ArgMax": "which compares all positions of its axis",
    "ArgMin": "which compares all positions of its axis",
    "TopK": "which compares all positions of its axis",
}


def _mixing(label: str, node: NodeProto) -> str:
    what = (
        "which sums over this axis"
        if node.op_type.startswith("Reduce")
        else "which does not treat its positions one by one"
    )
    return f"it feeds {label} ({node.op_type}), {MIXERS.get(node.op_type, what)}"


def _gather(network: Network, observation: Observation, found: _Labelled) -> ChannelGraph:
    contractions = tuple(found.findings.contractions)
    reasons = list(found.classes.reasons)
    label = found.classes.label
    axes = sorted(found.starts, key=lambda axis: found.starts[axis])
    sizes = np.array([found.starts[axis][1] for axis in axes], np.int64)
    owner = np.repeat(np.arange(len(axes)), sizes)
    _pin_loose(contractions, found, reasons)
    _pin_unbalanced(found, reasons, _footprints(label, owner, reasons, len(axes)))
    members = _footprints(label, owner, reasons, len(axes))
    groups = []
    for classes in members.values():
        cells = _cells(found, classes)
        if isinstance(cells, str):
            for index in classes:
                reasons[index] = cells
        elif int(cells.max()) + 1 < len(classes):
            groups.append(_group(network, found, axes, owner, np.array(classes), cells, contractions))
        else:
            for index in classes:
                reasons[index] = (
                    "it is a single channel"
                    if len(classes) == 1
                    else "a grouped operator needs one channel of each of its groups"
                )
    groups.sort(
        key=lambda group: min(network.position[name] for name in (*group.producers, *(c.node for c in group.consumers)))
    )
    return ChannelGraph(
        groups=tuple(_named(groups)),
        pinned=_pinned(contractions, found, reasons),
        contractions=contractions,
        observation=observation,
    )


def _footprints(
    label: IntArray, owner: IntArray, reasons: Sequence[str | None], axes: int
) -> Mapping[tuple[int, ...], list[int]]:
    """Free classes by footprint: the axes they lie on and how often."""
    free = np.array([reason is None for reason in reasons])[label]
    pairs, counts = np.unique(label[free] * axes + owner[free], return_counts=True)
    where: dict[int, list[int]] = defaultdict(list)
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        where[pair // axes] += [pair % axes, count]
    members: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, footprint in where.items():
        members[tuple(footprint)].append(index)
    return members


def _pin_loose(contractions: Sequence[Contraction], found: _Labelled, reasons: list[str | None]) -> None:
    """Pin what nothing contracts over or nothing produces: there is nothing to gain or nothing to refit."""
    made, read = np.zeros(len(reasons), bool), np.zeros(len(reasons), bool)
    for contraction in contractions:
        if contraction.whole_groups:
            continue
        made[found.classes.label[found.ids(contraction.output)]] = True
        read[found.classes.label[found.ids(contraction.rows)]] = True
    for index in range(len(reasons)):
        if reasons[index] is None and not (read[index]):
            reasons[index] = "no layer with constant weights reads it" if made[index] else "no layer makes or reads it"


def _pin_unbalanced(found: _Labelled, reasons: list[str | None], members: Mapping[tuple[int, ...], list[int]]) -> None:
    """Pin groups that do not lie equally in all cells of a grouped operator."""
    group = np.full(len(reasons), -1)
    for number, classes in enumerate(members.values()):
        group[classes] = number
    for node, ids, cells in found.findings.balances:
        classes = found.classes.label[ids]
        for number in np.unique(group[classes]):
            inside = group[classes] == number
            counts = np.bincount(cells[inside], minlength=int(cells.max()) + 1)
            if number >= 0 and (counts.min() != counts.max() or len(np.unique(classes[inside])) != inside.sum()):
                for index in np.unique(classes[inside]):
                    reasons[index] = f"{node} is grouped, and these channels do not lie equally in all of its groups"


def _cells(found: _Labelled, classes: Sequence[int]) -> IntArray | str:
    """The common refinement of all balances on a group, (width,) int64, or the reason why there is none."""
    place = {index: i for i, index in enumerate(classes)}
    cells = np.zeros(len(classes), np.int64)
    for _, ids, own in found.findings.balances:
        labels = found.classes.label[ids]
        inside = np.isin(labels, classes)
        if inside.any():
            of = np.zeros(len(classes), np.int64)
            of[[place[index] for index in labels[inside].tolist()]] = own[inside]
            cells = np.unique(cells * (int(own.max()) + 1) + of, return_inverse=True)[1]
    if len(np.unique(np.bincount(cells))) > 1:
        return "the grouped operators around it divide its channels in different ways"
    return cells.astype(np.int64)


def _group(
    network: Network,
    found: _Labelled,
    axes: Sequence[Axis],
    owner: IntArray,
    classes: IntArray,
    cells: IntArray,
    contractions: Sequence[Contraction],
) -> ChannelGroup:
    ids = np.flatnonzero(np.isin(found.classes.label, classes))
    slices: dict[Axis, Slice] = {}
    first: IntArray | None = None
    for number in dict.fromkeys(owner[ids].tolist()):
        axis = axes[number]
        start, size = found.starts[axis]
        own = ids[owner[ids] == number] - start
        labels = found.classes.label[own + start]
        if first is None:
            first = labels[np.sort(np.unique(labels, return_index=True)[1])]
            cells = cells[np.searchsorted(classes, first)]
        order = np.argsort(np.argsort(first)[np.searchsorted(np.sort(first), labels)], kind="stable")
        slices[axis] = Slice(axis=axis, positions=own[order].reshape(len(classes), -1), size=size)
    consumers = tuple(
        Consumer(contraction=c, positions=slices[c.rows].positions)
        for c in contractions
        if c.rows in slices and not c.whole_groups
    )
    producers = tuple(dict.fromkeys(c.node for c in contractions if c.output in slices and not c.whole_groups))
    return ChannelGroup(
        name=(producers or tuple(c.node for c in consumers))[0],
        width=len(classes),
        slices=tuple(slices.values()),
        producers=producers,
        consumers=consumers,
        cells=np.unique(cells, return_inverse=True)[1].astype(np.int64),
    )


def _named(groups: Sequence[ChannelGroup]) -> list[ChannelGroup]:
    """Groups are called after their first producer; further groups with the same one get a number."""
    seen: dict[str, int] = {}
    named = []
    for group in groups:
        seen[group.name] = seen.get(group.name, 0) + 1
        name = group.name if seen[group.name] == 1 else f"{group.name}#{seen[group.name]}"
        named.append(
            ChannelGroup(
                name=name,
                width=group.width,
                slices=group.slices,
                producers=group.producers,
                consumers=group.consumers,
                cells=group.cells,
            )
        )
    return named


def _pinned(contractions: Sequence[Contraction], found: _Labelled, reasons: Sequence[str | None]) -> tuple[Pinned, ...]:
    """One entry a contraction and reason: how many of its output channels stay."""
    entries = []
    for contraction in contractions:
        counts: dict[str, int] = {}
        for index in found.classes.label[found.ids(contraction.output)].tolist():
            reason = reasons[index]
            if reason is not None:
                counts[reason] = counts.get(reason, 0) + 1
        entries += [
            Pinned(node=contraction.node, axis=contraction.output, width=n, reason=r) for r, n in counts.items()
        ]
    return tuple(entries)
