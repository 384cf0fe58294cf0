"""Normalisations: by channel they tie like a scale; those that mix channels pin them."""

import numpy as np

from onnx_subprune.graph.operators import key_of
from onnx_subprune.graph.rules.vocabulary import Patch, Resizing, Rule, Scope, UnknownError


def batch_normalization(scope: Scope) -> None:
    """Inference form: one scale, bias, mean and variance a channel."""
    if scope.integer("training_mode", 0) or any(scope.node.output[1:]):
        raise UnknownError("it is in training mode: export the model for inference")
    for axis in range(len(scope.out_shape())):
        scope.tie(scope.input(0, axis), scope.output(axis))
    for slot in range(1, 5):
        scope.tie(scope.input(slot, 0), scope.output(1))


def instance_normalization(scope: Scope) -> None:
    """Statistics of each channel over its positions."""
    for axis in (0, 1):
        scope.tie(scope.input(0, axis), scope.output(axis))
    scope.tie(scope.input(1, 0), scope.output(1))
    scope.tie(scope.input(2, 0), scope.output(1))


def group_normalization(scope: Scope) -> None:
    """Statistics over the channels of a group: whole groups go."""
    groups = scope.integer("num_groups", 1)
    channels = scope.input(0, 1)
    scope.tie(scope.input(0, 0), scope.output(0))
    scope.tie(channels, scope.output(1))
    by_group = channels.reshape(groups, -1)
    scope.tie(by_group[:, :1], by_group)
    for slot in (1, 2):
        ids = scope.input(slot, 0)
        scope.tie(ids, channels if len(ids) == len(channels) else by_group[:, 0])


def resize_group_normalization(site: Resizing) -> Patch:
    """Count the groups that are left."""
    kept = site.kept_in(0, 1)
    if kept is None:
        return Patch()
    size = site.shape(0)[1] // site.integer("num_groups", 1)
    return Patch(attributes={"num_groups": len(np.unique(kept // size))})


def _all_but(scope: Scope, mixed: set[int]) -> None:
    for axis in range(len(scope.out_shape())):
        if axis not in mixed:
            scope.tie(scope.input(0, axis), scope.output(axis))


def mean_variance_normalization(scope: Scope) -> None:
    """Statistics over `axes`."""
    rank = len(scope.out_shape())
    _all_but(scope, {axis % rank for axis in scope.integers("axes") or (0, 2, 3)})


def trailing(scope: Scope) -> None:
    """LayerNormalization, RMSNormalization: statistics over the axes from `axis` on; over the last one with a constant scale, channels go (`spelling`)."""
    rank = len(scope.out_shape())
    _all_but(scope, set(range(scope.integer("axis", -1) % rank, rank)))


def one_axis(scope: Scope) -> None:
    """Softmax, LpNormalization, CumSum and others that mix the positions of one axis."""
    rank = len(scope.out_shape())
    default = 1 if key_of(scope.node) in ("Softmax", "LogSoftmax", "Hardmax") and scope.network.opset < 13 else -1
    axis = scope.integer("axis", default) % rank
    flattening = default == 1
    _all_but(scope, set(range(axis, rank)) if flattening else {axis})


def cumulative(scope: Scope) -> None:
    """CumSum: the axis is an input."""
    axis = scope.value(1)
    if axis is None:
        raise UnknownError("its axis is computed at run time")
    rank = len(scope.out_shape())
    _all_but(scope, {int(axis.item()) % rank})


def local_response(scope: Scope) -> None:
    """LRN: each channel is divided by a norm over its neighbours."""
    _all_but(scope, {1})


RULES = {
    "BatchNormalization": Rule(batch_normalization),
    "InstanceNormalization": Rule(instance_normalization),
    "GroupNormalization": Rule(group_normalization, resize_group_normalization),
    "MeanVarianceNormalization": Rule(mean_variance_normalization),
    "LayerNormalization": Rule(trailing),
    "RMSNormalization": Rule(trailing),
    "Softmax": Rule(one_axis),
    "LogSoftmax": Rule(one_axis),
    "Hardmax": Rule(one_axis),
    "LpNormalization": Rule(one_axis),
    "CumSum": Rule(cumulative),
    "LRN": Rule(local_response),
}
