"""Operators that regroup axes: Reshape, Flatten, Squeeze, Unsqueeze.

A flat index is a number in mixed radix and an axis some of its digits. An axis of the input and one of the output tie
where the digits of one are among the digits of the other: dropping a position of the finer axis is dropping a run of positions of the coarser. An axis
that is split over (or merged from) several can follow only one of them: the largest that nothing pins, or else that only a product of activations does.
What varies from run to run follows as well, as the batch does that is merged with the heads; see `KEEPING`.
"""

import numpy as np
from numpy.typing import NDArray

from onnx_subprune._typing import Int64
from onnx_subprune.graph.channels import Axis
from onnx_subprune.graph.operators import key_of
from onnx_subprune.graph.rules.digits import Digits, digits_of, segments, without_tail
from onnx_subprune.graph.rules.shuffles import shuffle_from, shuffle_to
from onnx_subprune.graph.rules.vocabulary import Patch, Resizing, Rule, Scope, Site, UnknownError

KEEPING = frozenset(("Flatten", "MatMul", "Reshape", "Shape", "Size", "Softmax", "Squeeze", "Transpose", "Unsqueeze"))
"""Operators, beside those by element, around which an axis of varying size may lose positions: none has numbers that hang on how many there are."""


def regroup(scope: Scope) -> None:
    """Tie the axes of input 0 and output 0, which hold the same elements in the same order."""
    before, after = scope.shape(0), scope.out_shape()
    if 0 in before:
        raise UnknownError("the tensor is empty")
    ones = [(True, axis) for axis, size in enumerate(before) if size == 1] + [
        (False, axis) for axis, size in enumerate(after) if size == 1
    ]
    for is_input, axis in ones:
        _ids(scope, Digits(not is_input, axis, 1, 1, (1, 1)))
    cuts, other = segments(before, after), scope.other_shapes()
    if other is not None and segments(*other) != cuts:
        raise UnknownError("which axes it regroups depends on their sizes")
    second = (before, after) if other is None else other
    varies = [scope.varying_in(0, axis) for axis in range(len(before))]
    differs = [scope.varying_out(axis) for axis in range(len(after))]
    for ins, outs in cuts:
        left = digits_of(ins, before, second[0], varies, out=False)
        right = digits_of(outs, after, second[1], differs, out=True)
        if len(ins) > 1 or len(outs) > 1:
            left, right = without_tail(left, right)
        right = [axis for axis in right if not axis.varying or _follows(scope, axis.index)]
        if len(ins) == len(outs) == len(right) == 1:
            scope.tie(scope.input(0, ins[0]), scope.output(outs[0]))
        else:
            _tie_segment(scope, left, right)


def _follows(site: Site, axis: int) -> bool:
    """False if the size of an axis of the output, which varies, would be computed as before where positions of that axis are gone."""
    if key_of(site.node) != "Reshape":
        return True
    value = site.value(1)
    if value is None:
        return False
    flags = np.broadcast_to(site.varies(1), value.shape)
    return not flags[axis] or _copied(site, value, flags) is not None


def _tie_segment(scope: Scope, ins: list[Digits], outs: list[Digits]) -> None:
    pairs = [(axis, outs) for axis in ins] + [(axis, ins) for axis in outs]
    if scope.exploring:
        for axis, others in pairs:
            if any(_related(axis, other) for other in others):
                _ids(scope, axis)
        return
    for coarse, others in pairs:
        inside = [axis for axis in others if axis.within(coarse)]
        if scope.free(_axis(scope, coarse)):  # else the other loses what it shares with further axes
            inside += [part for part in map(coarse.shared, others) if part is not None]
        finer = [axis for axis in inside if scope.free(_axis(scope, axis))]
        other = [axis for axis in inside if axis not in finer and scope.attainable(_axis(scope, axis))]
        finer, other = (finer, other) if finer else (other, [])
        if finer and not (coarse.out and any(coarse.within(axis) for axis in others)):
            fine = max(finer, key=lambda axis: axis.size)
            if len(finer) > 1:
                scope.choose(_axis(scope, fine))
            elif other:
                scope.prefer(_axis(scope, fine))
            run, ids = np.arange(coarse.size) * coarse.stride // fine.stride % fine.size, _ids(scope, fine)
            scope.tie(ids[run], _ids(scope, coarse))
            scope.tie(ids, ids[np.arange(len(ids)) % fine.size])


def _related(a: Digits, b: Digits) -> bool:
    """True if one of two axes can follow the other."""
    return a.within(b) or b.within(a) or a.shared(b) is not None or b.shared(a) is not None


def _axis(scope: Scope, digits: Digits) -> Axis:
    return scope.out_axis(digits.index) if digits.out else scope.in_axis(0, digits.index)


def _ids(scope: Scope, digits: Digits) -> Int64:
    return scope.output(digits.index) if digits.out else scope.input(0, digits.index)


def reshape(scope: Scope) -> None:
    """Reshape, with a constant or computed target; a channel shuffle ties across its three nodes."""
    if shuffle_from(scope) is not None:
        for axis in range(len(scope.shape(0))):
            scope.input(0, axis)
        return
    shuffle = shuffle_to(scope)
    if shuffle is None:
        regroup(scope)
        return
    for axis in range(len(scope.shape(0))):
        scope.input(0, axis)
    for axis, size in enumerate(scope.out_shape()):
        ids = scope.labels.axis(Axis(shuffle.source, axis), size)
        scope.tie(scope.output(axis), ids[shuffle.order] if axis == shuffle.axis else ids)


def resize_reshape(site: Resizing) -> Patch:
    """Write the sizes that changed into the target; a shuffle becomes a Gather of its source."""
    shuffle = shuffle_to(site)
    if shuffle is not None:
        kept_in, kept_out = site.kept(Axis(shuffle.source, shuffle.axis)), site.kept_out(shuffle.axis)
        if kept_in is None or kept_out is None:
            return Patch()
        return Patch(gather=(shuffle.source, shuffle.axis, np.searchsorted(kept_in, shuffle.order[kept_out])))
    return _inferred(site, spelled_sizes(site, 1))


def _inferred(site: Resizing, patch: Patch) -> Patch:
    """Say as 0 or -1 what a target of Reshape computes at run time, where that is enough: runtimes fuse what they know the shape of.

    0 takes over the size of the input on the same axis, if both runs say that it is the same; one other size follows from the rest.
    """
    target, mask = patch.constants.get(1, (np.zeros(0, np.int64), None))
    if mask is None or not np.any(mask):
        return patch
    found = _copied(site, target, np.broadcast_to(mask, target.shape))
    if found is None:
        return patch
    spelled = np.array(target)
    for axis in np.flatnonzero(spelled == -1) if found[1] else ():
        spelled[axis] = site.out_size(int(axis))
    spelled[found[0]], spelled[found[1]] = 0, -1
    return Patch(attributes={**patch.attributes, "allowzero": None}, constants={**patch.constants, 1: (spelled, None)})


def follows(site: Site) -> bool:
    """True if what a target of Reshape computes from run to run follows from the input, and need not be computed where that gets smaller."""
    value = site.value(1)
    return value is not None and _copied(site, value, np.broadcast_to(site.varies(1), value.shape)) is not None


def _copied(site: Site, target: NDArray[np.generic], flags: NDArray[np.bool_]) -> tuple[list[int], list[int]] | None:
    """Which computed sizes of a target the input has on the same axis, and the one that follows from the rest; None where that is not enough.

    What -1 stands for is a number then, which must be the same in both runs.
    """
    other = site.other_shapes()
    if other is None or (site.integer("allowzero", 0) and np.any((target == 0) & ~flags)):
        return None
    shapes = [(site.shape(0), site.out_shape()), other]
    computed = np.flatnonzero(flags).tolist()
    same = [axis for axis in computed if all(old[axis : axis + 1] == (new[axis],) for old, new in shapes)]
    left = [axis for axis in computed if axis not in same]
    inferred = np.flatnonzero((target == -1) & ~flags).tolist() if left else []
    steady = all(new[axis] == shapes[0][1][axis] for axis in inferred for _, new in shapes)
    return (same, left) if len(left) <= 1 and steady else None


def spelled_sizes(site: Resizing, slot: int) -> Patch:
    """Rewrite input `slot`, which holds one size for each axis of the output (0 and -1 as Reshape has them)."""
    value = site.value(slot)
    if value is None:
        return Patch()
    target = np.array(value)
    copies = key_of(site.node) == "Reshape"
    for axis, size in enumerate(target):
        if size > 0 or (size == 0 and copies and site.kept_out(axis) is not None):
            target[axis] = site.out_size(axis)
    return Patch(constants={slot: (target, site.varies(slot))})


def unsqueeze(scope: Scope) -> None:
    """Squeeze, Unsqueeze, Flatten: no size is spelled out."""
    regroup(scope)


RULES = {
    "Reshape": Rule(reshape, resize_reshape, spelled=(1,)),
    **dict.fromkeys(("Flatten", "Squeeze", "Unsqueeze"), Rule(unsqueeze)),
}
