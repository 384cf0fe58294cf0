"""Convolutions: channels of the input are contracted, channels of the output are made, positions stay.

A grouped convolution whose groups read or make a single channel loses whole groups; any other keeps equally many channels
of each group, and so does one whose groups make (or read) more channels each than there are groups: that is the finer choice, and what few channels
it reads are mostly those of the model's input.
"""

import numpy as np

from onnx_subprune.graph.channels import Axis, Contraction, Use
from onnx_subprune.graph.operators import key_of
from onnx_subprune.graph.rules.vocabulary import Patch, Resizing, Rule, Scope, UnknownError


def _conv(scope: Scope, *, rows: int) -> None:
    """Conv has weights (out, in / groups, ...), ConvTranspose (in, out / groups, ...): `rows` is the input axis."""
    if not scope.constant(1) or (scope.has(2) and not scope.constant(2)):
        raise UnknownError("its weight is computed at run time")
    groups = scope.integer("group", 1)
    columns = 1 - rows
    inputs, outputs = scope.shape(0)[1], scope.out_shape()[1]
    x, y = scope.input(0, 1), scope.output(1)
    weight_in, weight_out = scope.input(1, rows, inputs), scope.input(1, columns, outputs)
    scope.tie(scope.input(0, 0), scope.output(0))
    scope.tie(weight_in, x)
    scope.tie(weight_out, y)
    if scope.has(2):
        scope.tie(scope.input(2, 0), y)
    whole = groups > 1 and groups in (inputs, outputs) and max(inputs, outputs) <= groups * groups
    if groups > 1:
        if whole:
            scope.tie(x.reshape(groups, -1, 1), y.reshape(groups, 1, -1))
        else:
            scope.balance(x, np.arange(inputs) // (inputs // groups))
            scope.balance(y, np.arange(outputs) // (outputs // groups))
    weight = scope.node.input[1]
    use = Use(scope.label, 1)
    scope.contract(
        Contraction(
            node=scope.label,
            op=key_of(scope.node),
            input=scope.in_axis(0, 1),
            weight=use,
            weight_tensor=weight,
            rows=Axis(weight, rows, use),
            columns=Axis(weight, columns, use),
            output=scope.out_axis(1),
            bias=Use(scope.label, 2) if scope.has(2) else None,
            new_bias=None if scope.has(2) else Use(scope.label, 2),
            groups=groups,
            whole_groups=whole,
        )
    )


def conv(scope: Scope) -> None:
    """Conv of any rank, grouped or depthwise."""
    _conv(scope, rows=1)


def conv_transpose(scope: Scope) -> None:
    """ConvTranspose of any rank, plain or grouped."""
    _conv(scope, rows=0)


def resize_groups(site: Resizing) -> Patch:
    """Count the groups that are left."""
    groups = site.integer("group", 1)
    kept = site.kept_in(0, 1)
    if groups == 1 or kept is None:
        return Patch()
    left = len(np.unique(kept // (site.shape(0)[1] // groups)))
    return Patch(attributes={"group": left} if left != groups else {})


RULES = {"Conv": Rule(conv, resize_groups), "ConvTranspose": Rule(conv_transpose, resize_groups)}
