"""The reference for surgery: zero the dropped channels in the weights that contract over them, and cut nothing.

Slicing must equal masking; the law helper in `verification` compares the two.
"""

import numpy as np
from numpy.typing import NDArray

from onnx_subprune._typing import Int64
from onnx_subprune.graph.channels import ChannelGroup, Contraction, Use
from onnx_subprune.graph.network import Network


def zero_channels(
    network: Network, group: ChannelGroup, dropped: Int64, weights: dict[Use, NDArray[np.generic]]
) -> None:
    """Set to zero, in `weights`, what makes the `dropped` channels of a group that a product of activations sums over."""
    for part in group.silencers:
        assert part.axis.use is not None, "a constant has a use"
        value = np.array(weights[part.axis.use] if part.axis.use in weights else network.array(part.axis.tensor))
        np.moveaxis(value, part.axis.index, 0)[part.positions[dropped].ravel()] = 0
        weights[part.axis.use] = value


def zero_rows(weight: NDArray[np.generic], contraction: Contraction, rows: Int64) -> None:
    """Set `rows` (counted over all groups of a grouped convolution) of `weight` to zero, in place."""
    axis = contraction.rows.index
    depth = weight.shape[axis]
    if contraction.groups == 1 or axis == 0:
        weight[(slice(None),) * axis + (rows,)] = 0
        return
    size = weight.shape[0] // contraction.groups
    for row in rows.tolist():
        group, inside = divmod(row, depth)
        weight[group * size : (group + 1) * size, inside] = 0


def scaled_rows(
    weight: NDArray[np.generic], contraction: Contraction, factors: NDArray[np.float64]
) -> NDArray[np.generic]:
    """Return `weight` with every row (counted over all groups of a grouped convolution) times its factor, in its own type."""
    axis = contraction.rows.index
    depth, own = weight.shape[axis], factors.astype(weight.dtype)
    if contraction.groups == 1 or axis == 0:
        return np.asarray(weight * own.reshape((depth,) + (1,) * (weight.ndim - axis - 1)))
    parts = weight.reshape(contraction.groups, -1, *weight.shape[1:])
    return np.asarray(parts * own.reshape(contraction.groups, 1, depth, *(1,) * (weight.ndim - 2))).reshape(
        weight.shape
    )
