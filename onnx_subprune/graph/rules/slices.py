"""Operators that take positions away or add some: Split, Slice, Gather, Pad."""

import numpy as np

from onnx_subprune._typing import Int64
from onnx_subprune.graph.rules.vocabulary import Patch, Resizing, Rule, Scope, Site, UnknownError


def split(scope: Scope) -> None:
    """Pieces of one axis."""
    rank = len(scope.shape(0))
    along = scope.integer("axis", 0) % rank
    if scope.varying_in(0, along):
        raise UnknownError("it splits an axis whose size varies")
    offset = 0
    for which in range(len(scope.node.output)):
        for axis in range(rank):
            ids, out = scope.input(0, axis), scope.output(axis, which)
            scope.tie(ids[offset : offset + len(out)] if axis == along else ids, out)
        offset += scope.out_shape(which)[along]


def resize_split(site: Resizing) -> Patch:
    """Spell the new sizes of the pieces out."""
    along = site.integer("axis", 0) % len(site.shape(0))
    if site.kept_in(0, along) is None:
        return Patch()
    sizes = [site.out_size(along, which) for which in range(len(site.node.output))]
    if site.network.opset < 13:
        return Patch(attributes={"split": sizes})
    spelled = {1: (np.array(sizes, np.int64), None)}
    return Patch(attributes={"num_outputs": None}, constants=spelled)


def _given(site: Site, slot: int, name: str) -> tuple[int, ...] | None:
    """A list that is an input since some opset and was an attribute before."""
    if site.has(slot):
        value = site.value(slot)
        if value is None:
            raise UnknownError("its bounds are computed at run time")
        return tuple(int(v) for v in np.atleast_1d(value))
    return site.integers(name)


def _cuts(site: Site) -> dict[int, slice]:
    rank = len(site.shape(0))
    starts, ends = _given(site, 1, "starts"), _given(site, 2, "ends")
    if starts is None or ends is None:
        raise UnknownError("its bounds are not known")
    axes = _given(site, 3, "axes") or tuple(range(len(starts)))
    steps = _given(site, 4, "steps") or (1,) * len(starts)
    lowest = -(2**31) + 1
    return {
        axis % rank: slice(start, None if step < 0 and end < lowest else end, step)
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
    }


def _cut_positions(site: Site, axis: int, cut: slice) -> Int64:
    return np.arange(site.shape(0)[axis], dtype=np.int64)[cut]


def cut(scope: Scope) -> None:
    """Slice: what is cut off is free to go; steps other than 1 tie only where one axis is cut."""
    cuts = _cuts(scope)
    bounds = any(scope.has(slot) and np.any(scope.varies(slot)) for slot in (1, 2))
    for axis in range(len(scope.shape(0))):
        along = cuts.get(axis)
        if along is None:
            scope.tie(scope.input(0, axis), scope.output(axis))
        elif (along.step == 1 or len(cuts) == 1) and not bounds and not scope.varying_in(0, axis):
            scope.tie(scope.input(0, axis)[_cut_positions(scope, axis, along)], scope.output(axis))


def resize_cut(site: Resizing) -> Patch:
    """Move the bounds; with a step, gather instead."""
    cuts = _cuts(site)
    starts, ends = [], []
    for axis, along in cuts.items():
        kept = site.kept_in(0, axis)
        positions = _cut_positions(site, axis, along)
        if kept is None:
            starts.append(along.start)
            ends.append(along.stop if along.stop is not None else -(2**63))
            continue
        left = np.searchsorted(kept, positions[np.isin(positions, kept)])
        if along.step != 1:
            return Patch(gather=(site.node.input[0], axis, left))
        starts.append(int(left[0]) if len(left) else 0)
        ends.append(int(left[-1]) + 1 if len(left) else 0)
    if not site.has(1):
        return Patch(attributes={"starts": starts, "ends": ends})
    return Patch(
        constants={
            1: (np.array(starts, _dtype(site, 1)), site.varies(1)),
            2: (np.clip(np.array(ends, object), *_limits(site, 2)).astype(_dtype(site, 2)), site.varies(2)),
        }
    )


def _dtype(site: Site, slot: int) -> np.dtype[np.generic]:
    value = site.value(slot)
    assert value is not None
    return value.dtype


def _limits(site: Site, slot: int) -> tuple[int, int]:
    info = np.iinfo(_dtype(site, slot).name)
    return int(info.min), int(info.max)


def gather(scope: Scope) -> None:
    """Gather with constant indices picks positions; with computed ones (an embedding) it pins the axis."""
    shape = scope.shape(0)
    along = scope.integer("axis", 0) % len(shape)
    indices = scope.value(1)
    rank = len(scope.shape(1))
    for axis in range(len(shape)):
        if axis != along:
            scope.tie(scope.input(0, axis), scope.output(axis if axis < along else axis + rank - 1))
    if indices is not None and not np.any(scope.varies(1)) and not scope.varying_in(0, along):
        picked = scope.input(0, along)[indices % shape[along]]
        if rank == 1:
            scope.tie(picked, scope.output(along))
        else:
            scope.pin(picked, "Gather picks it by position")
    for axis in range(rank):
        if rank > 1:
            scope.input(1, axis)
        elif rank == 1:
            scope.tie(scope.input(1, 0), scope.output(along))


def resize_gather(site: Resizing) -> Patch:
    """Number the picked positions anew."""
    along = site.integer("axis", 0) % len(site.shape(0))
    kept, indices = site.kept_in(0, along), site.value(1)
    if kept is None or indices is None:
        return Patch()
    wanted = indices % site.shape(0)[along]
    if wanted.ndim == 1:
        wanted = wanted[np.isin(wanted, kept)]
    return Patch(constants={1: (np.searchsorted(kept, wanted).astype(indices.dtype), None)})


def _margins(site: Site) -> dict[int, tuple[int, int]]:
    rank = len(site.shape(0))
    pads = _given(site, 1, "pads")
    if pads is None:
        raise UnknownError("its margins are not known")
    axes = _given(site, 3, "axes") or tuple(range(rank))
    half = len(pads) // 2
    return {axis % rank: (pads[i], pads[half + i]) for i, axis in enumerate(axes)}


def pad(scope: Scope) -> None:
    """Pad with a constant: the added positions belong to no input and are free to go."""
    margins = _margins(scope)
    filled = scope.text("mode", "constant") == "constant"
    fixed = not (scope.has(1) and np.any(scope.varies(1)))
    for axis in range(len(scope.shape(0))):
        before, after = margins.get(axis, (0, 0))
        if (before, after) == (0, 0):
            scope.tie(scope.input(0, axis), scope.output(axis))
        elif filled and fixed and min(before, after) >= 0 and not scope.varying_in(0, axis):
            out = scope.output(axis)
            scope.tie(scope.input(0, axis), out[before : len(out) - after])


def resize_pad(site: Resizing) -> Patch:
    """Shrink the margins by the added positions that went."""
    margins = _margins(site)
    new = dict(margins)
    for axis, (before, after) in margins.items():
        kept = site.kept_out(axis)
        if kept is not None:
            end = site.out_shape()[axis] - after
            new[axis] = (int(np.sum(kept < before)), int(np.sum(kept >= end)))
    if new == margins:
        return Patch()
    pads = [pair[0] for pair in new.values()] + [pair[1] for pair in new.values()]
    if not site.has(1):
        return Patch(attributes={"pads": pads})
    return Patch(constants={1: (np.array(pads, np.int64), site.varies(1))})


RULES = {
    "Split": Rule(split, resize_split, spelled=(1,)),
    "Slice": Rule(cut, resize_cut, spelled=(1, 2)),
    "Gather": Rule(gather, resize_gather, spelled=(1,)),
    "Pad": Rule(pad, resize_pad, spelled=(1,)),
}
