"""Weights that several nodes read: their uses keep the same channels, so that one weight stays one.

The rule: a constant of the file that is the weight of some contraction is shared on purpose, and all that reads it is tied, position by position;
what reads it otherwise (a body, an output, a computation of other constants) pins it. Not tied are axes along which all its parts are equal (a
filter that is the same for every channel): any of them do for any channel. Constants that are no contraction's weight (biases, scales, single
numbers, which exporters merge where they happen to be equal) are not tied: uses that need different channels have a copy each.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from onnx_subprune._typing import Array
from onnx_subprune.graph.channels import Axis, Contraction, Use
from onnx_subprune.graph.contractions.reading import kernel_at
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.rules.coordinates import Labels
from onnx_subprune.graph.sharing import Readers, readers_of_constants


def shared_weights(network: Network, contractions: Sequence[Contraction]) -> Mapping[str, Readers]:
    """Return the readers of the constants of the file that are weights of `contractions` and have more readers than one."""
    weights = {item.weight for item in contractions}
    return {
        tensor: readers
        for tensor, readers in readers_of_constants(network).items()
        if len(readers.uses) + len(readers.others) > 1 and not weights.isdisjoint(readers.uses)
    }


def tie_shared(network: Network, labels: Labels, contractions: Sequence[Contraction]) -> None:
    """Tie what the uses of one weight keep; see the module."""
    for tensor, readers in shared_weights(network, contractions).items():
        value = network.array(tensor)
        for axis in range(value.ndim):
            seen = [labels.known(place) for place in _places(network, readers, axis)]
            ids = [found for found in seen if found is not None]
            grouped = any(
                len(item) != value.shape[axis] for item in ids
            )  # it counts over the groups, which lie on axis 0
            if not readers.others and (_uniform(value, axis) or (grouped and _uniform(value, 0))):
                continue
            for other in ids[1:]:
                if len(other) == len(ids[0]):
                    labels.tie(ids[0], other)
                else:
                    for item in (ids[0], other):
                        labels.pin(item, f"its weight {tensor!r} is shared by convolutions with other groups")
            for item in ids if readers.others else ():
                labels.pin(item, f"its weight {tensor!r} is read by {readers.others[0]} as well")


def _places(network: Network, readers: Readers, axis: int) -> list[Axis]:
    """Axis `axis` of a constant of the file, as each use sees it."""
    found = []
    for use, root in readers.uses.items():
        name = network.node(use.node).input[use.slot]
        index = axis if root.axes is None else root.axes.index(axis)
        found.append(Axis(name, index, use))
    return found


def _uniform(value: Array, axis: int) -> bool:
    """True if there are several parts of a constant along an axis, and all are equal."""
    return value.shape[axis] > 1 and bool(np.all(value == value.take([0], axis=axis)))


def sharing(
    network: Network, contractions: Sequence[Contraction]
) -> tuple[Mapping[Use, tuple[Contraction, ...]], frozenset[Use]]:
    """Return `ChannelGraph.shared` and `ChannelGraph.fixed`."""
    shared, fixed = dict[Use, tuple[Contraction, ...]](), set[Use]()
    by_use = {item.weight: item for item in contractions}
    for readers in shared_weights(network, contractions).values():
        mine = [by_use[use] for use in readers.uses if use in by_use]
        value = network.array(mine[0].weight_tensor)
        if (
            len({_layout(network, item, readers) for item in mine}) > 1
            or len(mine) < len(readers.uses)
            or readers.others
        ):
            fixed.update(item.weight for item in mine)
        elif not any(_uniform(value, axis) for axis in range(value.ndim)):
            shared.update((item.weight, tuple(mine)) for item in mine)
    fixed.update(item.weight for items in shared.values() for item in items if item.internal)
    fixed.update(item.weight for item in contractions if not item.observed)
    return {use: items for use, items in shared.items() if use not in fixed}, frozenset(fixed)


def _layout(network: Network, contraction: Contraction, readers: Readers) -> tuple[object, ...]:
    """What must be equal so that one refit does for several contractions."""
    root = readers.uses[contraction.weight]
    shape = network.array(contraction.weight_tensor).shape
    kernel = kernel_at(network.node(contraction.node), shape, contraction.weight.slot)
    return (
        root.axis(contraction.rows.index),
        contraction.groups,
        contraction.op in ("Conv", "ConvTranspose"),
        kernel.alpha,
    )
