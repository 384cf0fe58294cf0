"""From a model to its channel groups: run the rules, pin what no rule mentions, gather classes with the same footprint.

An axis that is split or merged can follow one of several others. A first pass finds out which of them are pinned anyway; the next
ones let it follow the largest that is left, until what they follow is not pinned by what comes behind it. What only a product of two activations pins
(the numbers of a head of Q and K) is followed last, where there is nothing else.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from onnx_subprune.errors import typed
from onnx_subprune.graph.channels import Axis, ChannelGraph, Contraction, Pinned
from onnx_subprune.graph.example import Example, Feeds
from onnx_subprune.graph.formats import Model
from onnx_subprune.graph.network import Network, check_floating, load
from onnx_subprune.graph.observation import Observation
from onnx_subprune.graph.observing import observe
from onnx_subprune.graph.rules import RULES
from onnx_subprune.graph.rules.vocabulary import Rule
from onnx_subprune.graph.statistics import counted_uses
from onnx_subprune.graph.tracing.groups import Footprints, find_groups, named, pin_loose
from onnx_subprune.graph.tracing.rule_pass import Labelling, run_rules
from onnx_subprune.graph.tracing.shared import sharing
from onnx_subprune.graph.tracing.sizes import fixed_by_size, size_sources

ATTEMPTS = 4
"""So many times another axis is tried where one that was followed turned out to be pinned."""


@typed("rules", "example", "rows", "constants")
def trace(
    model: Model | Network,
    *,
    rules: Mapping[str, Rule] = RULES,
    example: Example | None = None,
    rows: bool = False,
    constants: Feeds = MappingProxyType({}),
) -> ChannelGraph:
    """Return the channel groups of `model`, its contractions, and what is pinned with the reasons.

    Parameters
    ----------
    model
        As in `prune`.
    rules
        What is known of operators, by name.
    example
        A run on the data, whose sizes are then the model's; None for made-up ones.
    rows, constants
        See `observe`.

    Returns
    -------
    The graph of channels: `groups` that live or die together, and what is `pinned`.

    Raises
    ------
    ModelError
        If the model cannot be read or does not run, or it is quantized and has no layer in floating point.
    DataError
        If it does not run on the example.

    Examples
    --------
    >>> from onnx_subprune import trace
    >>> [(group.name, group.width) for group in trace("model.onnx").groups]
    [('conv1', 16), ('conv2', 24)]
    >>> print(trace("model.onnx").pinned[0].reason)
    'logits' is an output of the model

    """
    network = load(model)
    check_floating(network)
    observation = observe(network, example, rows=rows, constants=constants)
    found = _labelled(network, observation, rules)
    contractions = tuple(found.findings.contractions)
    reasons = list(found.classes.reasons)
    pin_loose(contractions, found, reasons)
    groups = find_groups(Footprints(found), contractions, reasons, network)
    shared, fixed = sharing(network, contractions)
    return ChannelGraph(
        groups=named(groups, network.position),
        pinned=_pinned(contractions, found, reasons),
        contractions=contractions,
        observation=observation,
        shared=shared,
        fixed=fixed,
        counted=counted_uses(network),
    )


def _labelled(network: Network, observation: Observation, rules: Mapping[str, Rule]) -> Labelling:
    sources = size_sources(network, observation, rules)
    fixed = fixed_by_size(network, observation, rules, sources)

    def settled(hopeless: frozenset[Axis], beyond: frozenset[Axis] | None) -> tuple[Labelling, frozenset[Axis]]:
        """Try until no axis that was followed is pinned; return the axes that are, too."""
        for _ in range(ATTEMPTS):
            found = run_rules(network, observation, rules, fixed, hopeless, beyond)
            reasons = list(found.classes.reasons)
            pin_loose(found.findings.contractions, found, reasons)
            failed = {axis for axis in found.findings.choices if not found.free(axis)}
            followed = (*found.findings.choices, *found.findings.preferred)
            failed |= {axis for axis in followed if _idle(found, axis, reasons) or _one(found, axis)}
            if not failed:
                break
            hopeless |= failed
            beyond = None if beyond is None else beyond | failed
        return found, hopeless

    explored = run_rules(network, observation, rules, fixed, None)
    hopeless = frozenset(axis for axis in explored.starts if not explored.free(axis))
    found, hopeless = settled(hopeless, None)
    multiplied = run_rules(network, observation, rules, fixed, None, frozenset())
    if not multiplied.findings.products:
        return found
    return settled(hopeless, frozenset(axis for axis in multiplied.starts if not multiplied.free(axis)))[0]


def _idle(found: Labelling, axis: Axis, reasons: Sequence[str | None]) -> bool:
    """True if no position of an axis can go, also for want of a layer that reads or makes it."""
    return axis in found.starts and all(reasons[index] is not None for index in found.classes.label[found.ids(axis)])


def _one(found: Labelling, axis: Axis) -> bool:
    """True if all positions of an axis coincide: what follows it follows something else as well."""
    ids = found.ids(axis)
    return len(ids) > 1 and len(np.unique(found.classes.label[ids])) == 1


def _pinned(contractions: Sequence[Contraction], found: Labelling, reasons: Sequence[str | None]) -> tuple[Pinned, ...]:
    """One entry an output of contractions and reason: how many of its output channels stay."""
    entries, once = [], {(item.node, item.output): item for item in contractions}
    for contraction in once.values():
        counts: dict[str, int] = {}
        for index in found.classes.label[found.ids(contraction.output)].tolist():
            reason = reasons[index]
            if reason is not None:
                counts[reason] = counts.get(reason, 0) + 1
        entries += [
            Pinned(node=contraction.node, axis=contraction.output, width=n, reason=r) for r, n in counts.items()
        ]
    return tuple(entries)
