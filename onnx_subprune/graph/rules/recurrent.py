"""Recurrent layers: LSTM, GRU, RNN, of one or two directions.

With H units, g gates (4, 3, 1), I features and d directions:

    W (d, g H, I)   R (d, g H, H)   B (d, 2 g H)   P (d, 3 H)   states (d, batch, H)   Y (steps, d, batch, H)   Y_h, Y_c (d, batch, H)

(layout = 1, the batch first, is turned when a model is loaded: see `layouts`). A unit owns its row of every gate, its column of R, which carries
it on to the next step, and its place in all states. Both directions of a unit have one place in Y, so that they go together. What the activations are, clipping
and the lengths of the sequences do not matter: all are done unit by unit.

States that begin as zeros whatever the model reads are left out where units go, which is the same: exporters cut those of all layers from one tensor, and
their units would have to be the same.

W and R are two contractions of one node: what they put out, the gates, is no tensor of the model. Each has its half of B for a bias, which is not
refitted where sequences have lengths: what is behind their ends counts for the means, and for nothing else. Where Y has no name, and where the reset
gate of a GRU comes before the product (linear_before_reset = 0), no tensor shows what R reads; in the latter case it follows from units and gates, where
these are known (`reconstruction.recurrent_gates`).
"""

import numpy as np
from onnx import TensorProto, numpy_helper

from onnx_subprune.graph.channels import Axis, Contraction, Use
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import attribute, key_of
from onnx_subprune.graph.rules.vocabulary import Patch, Resizing, Rule, Scope, Site, UnknownError

DATA, WEIGHT, RECURRENCE, BIAS, LENGTHS, HIDDEN, CELL, PEEPHOLES = range(8)
"""The inputs."""
MOVING = frozenset(
    ("Cast", "Expand", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze")
)
"""Operators that make zeros of zeros."""


def recurrent(scope: Scope) -> None:
    """See the module."""
    weights = (WEIGHT, RECURRENCE, *(slot for slot in (BIAS, PEEPHOLES) if scope.has(slot)))
    if not all(scope.constant(slot) for slot in weights):
        raise UnknownError("its weights are computed at run time")
    if not any(scope.node.output):
        raise UnknownError("nothing that it makes has a name")
    units = scope.input(RECURRENCE, 2)
    for slot in weights:
        rows = scope.input(slot, 1)
        scope.tie(rows.reshape(-1, len(units)), units)
    scope.tie(scope.input(WEIGHT, 2), scope.input(DATA, 2))
    samples = scope.input(DATA, 1)
    for slot in (slot for slot in (HIDDEN, CELL) if scope.has(slot)):
        scope.tie(scope.input(slot, 1), samples)
        if slot in _zeros(scope):
            scope.input(slot, 2)
        else:
            scope.tie(scope.input(slot, 2), units)
    if scope.has(LENGTHS):
        scope.tie(scope.input(LENGTHS, 0), samples)
    for which, name in enumerate(scope.node.output):
        if name:
            scope.tie(scope.output(-1, which), units)
            scope.tie(scope.output(-2, which), samples)
    _contract(scope)


def _contract(scope: Scope) -> None:
    names = scope.node.output
    made = scope.out_axis(-1, next(which for which, name in enumerate(names) if name))
    reset = key_of(scope.node) == "GRU" and not scope.integer("linear_before_reset", 0)
    for slot, source in ((WEIGHT, scope.in_axis(DATA, 2)), (RECURRENCE, made)):
        name, use = scope.node.input[slot], Use(scope.label, slot)
        observed = slot == WEIGHT or bool(names[0] and not reset)
        biased = observed and scope.has(BIAS) and not scope.has(LENGTHS)
        scope.contract(
            Contraction(
                node=scope.label,
                op=key_of(scope.node),
                input=source,
                weight=use,
                weight_tensor=name,
                rows=Axis(name, 2, use),
                columns=Axis(name, 1, use),
                output=made,
                bias=Use(scope.label, BIAS) if biased else None,
                internal=True,
                observed=observed,
            )
        )


def resize_recurrent(site: Resizing) -> Patch:
    """Count the units that are left."""
    kept = site.kept_in(RECURRENCE, 2)
    if kept is None or attribute(site.node, "hidden_size") is None:
        return Patch()
    return Patch(attributes={"hidden_size": len(kept)}, emptied=_zeros(site))


def _zeros(site: Site) -> tuple[int, ...]:
    """The slots of initial states that are computed, and are zeros whatever the model reads."""
    slots = (slot for slot in (HIDDEN, CELL) if site.has(slot) and not site.constant(slot))
    return tuple(slot for slot in slots if zeros(site.network, site.node.input[slot]))


def zeros(network: Network, name: str) -> bool:
    """Return whether a tensor is zero whatever the model reads."""
    if name in network.constants:
        return not np.any(network.array(name))
    place = network.producer.get(name, -1)
    if place < 0:
        return False
    node = network.nodes[place]
    if key_of(node) == "ConstantOfShape":
        value = attribute(node, "value")
        return value is None or (isinstance(value, TensorProto) and not np.any(numpy_helper.to_array(value)))
    if key_of(node) == "Concat":
        return all(zeros(network, part) for part in node.input)
    return key_of(node) in MOVING and zeros(network, node.input[0])


RULES = dict.fromkeys(("GRU", "LSTM", "RNN"), Rule(recurrent, resize_recurrent))
