"""What is left of axes and constants when channels go."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_subprune._typing import Array, Int64
from onnx_subprune.graph.channels import Axis, ChannelGraph, Contraction, Use


def kept_positions(graph: ChannelGraph, supports: Mapping[str, Sequence[int]]) -> Mapping[Axis, Int64]:
    """Return the positions that stay on every axis that loses some."""
    masks: dict[Axis, NDArray[np.bool_]] = {}
    for group in graph.groups:
        dropped = np.setdiff1d(
            np.arange(group.width), np.asarray(supports.get(group.name, range(group.width)), np.int64)
        )
        if dropped.size:
            for part in group.slices:
                masks.setdefault(part.axis, np.ones(part.size, bool))[part.positions[dropped].ravel()] = False
    return {axis: np.flatnonzero(mask) for axis, mask in masks.items()}


def slice_weight(weight: Array, contraction: Contraction, rows: Int64 | None, columns: Int64 | None) -> Array:
    """Return `weight` with these rows and columns left; both count over all groups of a grouped convolution."""
    row_axis, column_axis = contraction.rows.index, contraction.columns.index
    if contraction.groups == 1:
        for axis, kept in ((row_axis, rows), (column_axis, columns)):
            weight = weight if kept is None else np.take(weight, kept, axis=axis)
        return weight
    if any(kept is not None and not kept.size for kept in (rows, columns)):
        return weight[:0]  # of a branch that goes as a whole: nobody reads it
    outer = 0  # both Conv (out, in / groups) and ConvTranspose (in, out / groups) stack the groups on axis 0
    stacked, inner = (columns, rows) if column_axis == outer else (rows, columns)
    size, depth = weight.shape[0] // contraction.groups, weight.shape[1]
    parts = []
    for group in range(contraction.groups):
        first, second = _local(stacked, group, size), _local(inner, group, depth)
        if first.size and second.size:
            parts.append(weight[group * size + first][:, second])
        assert bool(first.size) == bool(second.size), "a group of a convolution lost one side only"
    return np.concatenate(parts)


def slice_constant(
    value: Array, use: Use, name: str, contraction: Contraction | None, kept: Mapping[Axis, Int64]
) -> Array:
    """Return what is left of a constant `name` as `use` sees it; contraction: whose weight it is, or, without a name, whose new bias."""
    if contraction is not None and name:
        value = slice_weight(value, contraction, kept.get(contraction.rows), kept.get(contraction.columns))
    elif contraction is not None:
        cut = kept.get(contraction.output)
        value = value if cut is None else value[cut]
    else:
        for axis in range(value.ndim):
            cut = kept.get(Axis(name, axis, use))
            value = value if cut is None else np.take(value, cut, axis=axis)
    return np.ascontiguousarray(value)


def _local(kept: Int64 | None, group: int, size: int) -> Int64:
    if kept is None:
        return np.arange(size)
    return kept[(kept >= group * size) & (kept < (group + 1) * size)] - group * size
