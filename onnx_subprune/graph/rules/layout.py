"""Operators that move, repeat or fill whole positions: Transpose, Concat, ConstantOfShape, Expand, Tile, pixel shuffles, Resize."""

import numpy as np

from onnx_subprune.graph.rules.elementwise import broadcast
from onnx_subprune.graph.rules.reshape import spelled_sizes
from onnx_subprune.graph.rules.vocabulary import Patch, Resizing, Rule, Scope, UnknownError


def transpose(scope: Scope) -> None:
    """Axis i of the output is axis perm[i] of the input."""
    rank = len(scope.out_shape())
    for axis, source in enumerate(scope.integers("perm") or tuple(reversed(range(rank)))):
        scope.tie(scope.input(0, source), scope.output(axis))


def concat(scope: Scope) -> None:
    """Inputs one behind the other on one axis."""
    rank = len(scope.out_shape())
    along = scope.integer("axis", 1) % rank
    offset = 0
    for slot in range(len(scope.node.input)):
        for axis in range(rank):
            ids = scope.input(slot, axis)
            if axis != along:
                scope.tie(ids, scope.output(axis))
            elif not scope.varying_out(along):
                scope.tie(ids, scope.output(axis)[offset : offset + len(ids)])
                offset += len(ids)
            else:
                scope.pin(ids, "it is concatenated along an axis whose size varies")


def expand(scope: Scope) -> None:
    """Axes of equal size tie; an axis that is repeated has a size of its own."""
    broadcast(scope, [0])


def resize_expand(site: Resizing) -> Patch:
    """Write the sizes that changed into the shape; it is aligned from the right and 1 repeats nothing."""
    value = site.value(1)
    if value is None:
        return Patch()
    shape = np.array(value)
    for back in range(1, len(shape) + 1):
        if shape[-back] > 1:
            shape[-back] = site.out_size(-back % len(site.out_shape()))
    return Patch(constants={1: (shape, site.varies(1))})


def filled(scope: Scope) -> None:
    """ConstantOfShape: all positions are alike, so that any may go."""
    for axis in range(len(scope.out_shape())):
        scope.output(axis)


def resize_filled(site: Resizing) -> Patch:
    """Write the sizes that changed into the shape."""
    value = site.value(0)
    if value is None:
        return Patch()
    kept = [site.out_size(axis) for axis in range(len(site.out_shape()))]
    return Patch(constants={0: (np.array(kept, value.dtype), site.varies(0))})


def tile(scope: Scope) -> None:
    """Axes repeated once tie; of an axis of one position all that are made are alike, so that any may go."""
    repeats = scope.value(1)
    if repeats is None:
        raise UnknownError("its repeats are computed at run time")
    for axis, times in enumerate(repeats):
        if scope.varies(1)[axis]:
            continue
        if times == 1:
            scope.tie(scope.input(0, axis), scope.output(axis))
        elif scope.shape(0)[axis] == 1 and not scope.varying_in(0, axis):
            scope.input(0, axis)
            scope.output(axis)


def resize_tile(site: Resizing) -> Patch:
    """Write how often an axis of one position is repeated now."""
    value = site.value(1)
    if value is None:
        return Patch()
    repeats = np.array(value)
    for axis, times in enumerate(repeats):
        if times > 1 and site.kept_out(axis) is not None:
            repeats[axis] = site.out_size(axis)
    return Patch(constants={1: (repeats, site.varies(1))})


def depth_to_space(scope: Scope) -> None:
    """Each channel of the output is made of blocksize^2 channels of the input."""
    block = scope.integer("blocksize", 1) ** 2
    x, y = scope.input(0, 1), scope.output(1)
    scope.tie(scope.input(0, 0), scope.output(0))
    crd = scope.text("mode", "DCR") == "CRD"
    scope.tie(x.reshape(len(y), block) if crd else x.reshape(block, len(y)).T, y[:, None])


def space_to_depth(scope: Scope) -> None:
    """Each channel of the input becomes blocksize^2 channels of the output."""
    x, y = scope.input(0, 1), scope.output(1)
    scope.tie(scope.input(0, 0), scope.output(0))
    scope.tie(y.reshape(-1, len(x)), x)


def resize(scope: Scope) -> None:
    """Resize, Upsample: axes that keep their size tie."""
    for axis, (before, after) in enumerate(zip(scope.shape(0), scope.out_shape(), strict=True)):
        if before == after and scope.varying_in(0, axis) == scope.varying_out(axis):
            scope.tie(scope.input(0, axis), scope.output(axis))


def resize_sizes(site: Resizing) -> Patch:
    """Write the sizes that changed, where they are given as sizes."""
    if not site.has(3) or site.value(3) is None or site.shape(3) == (0,):
        return Patch()
    axes = site.integers("axes")
    if axes is None:
        return spelled_sizes(site, 3)
    rank = len(site.out_shape())
    sizes = np.array([site.out_size(axis % rank) for axis in axes], np.int64)
    return Patch(constants={3: (sizes, site.varies(3))})


RULES = {
    "Transpose": Rule(transpose),
    "Concat": Rule(concat),
    "ConstantOfShape": Rule(filled, resize_filled, spelled=(0,)),
    "Expand": Rule(expand, resize_expand, spelled=(1,)),
    "Tile": Rule(tile, resize_tile, spelled=(1,)),
    "DepthToSpace": Rule(depth_to_space),
    "SpaceToDepth": Rule(space_to_depth),
    "Resize": Rule(resize, resize_sizes, spelled=(3,)),
    "Upsample": Rule(resize),
}
