"""From classes of coinciding coordinates to channel groups: free classes with the same footprint."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnx_subprune._typing import Int64
from onnx_subprune.graph.channels import Axis, ChannelGroup, Consumer, Contraction, Product, Slice
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.statistics import normalized
from onnx_subprune.graph.tracing.products import silencers_of
from onnx_subprune.graph.tracing.rule_pass import Labelling

LEFT_OVER = "the grouped operators around it divide its channels unevenly, and it is one of those left over"


class Footprints:
    """Where each class lies: `owner` numbers the axis of each coordinate, `order` sorts coordinates by class."""

    def __init__(self, found: Labelling) -> None:
        self.found = found
        self.axes = sorted(found.starts, key=lambda axis: found.starts[axis])
        sizes = np.array([found.starts[axis][1] for axis in self.axes], np.int64)
        self.owner = np.repeat(np.arange(len(self.axes)), sizes)
        self.order = np.argsort(found.classes.label, kind="stable")
        self.bounds = np.searchsorted(found.classes.label[self.order], np.arange(len(found.classes.reasons) + 1))

    def ids(self, index: int) -> Int64:
        """Return the coordinates of a class, ascending."""
        return np.asarray(self.order[self.bounds[index] : self.bounds[index + 1]], np.int64)

    def alike(self, reasons: Sequence[str | None]) -> list[list[int]]:
        """Return the free classes, those with the same footprint (axes, and how often on each) together."""
        members: dict[bytes, list[int]] = defaultdict(list)
        for index, reason in enumerate(reasons):
            if reason is None:
                members[self.owner[self.ids(index)].tobytes()].append(index)
        return list(members.values())


def pin_loose(contractions: Sequence[Contraction], found: Labelling, reasons: list[str | None]) -> None:
    """Pin what nothing sums over: zeroing weights would not remove it; and what layers and products of activations do at once."""
    made, read, multiplied = (np.zeros(len(reasons), bool) for _ in range(3))
    for contraction in contractions:
        made[found.classes.label[found.ids(contraction.output)]] = True
        if not contraction.whole_groups:
            read[found.classes.label[found.ids(contraction.rows)]] = True
    for product in found.findings.products:
        multiplied[found.classes.label[found.ids(product.left)]] = True
    for index in np.flatnonzero(read == multiplied).tolist():
        if reasons[index] is None and read[index]:
            reasons[index] = "a layer reads it, and a product of activations sums over it as well"
        elif reasons[index] is None:
            reasons[index] = "no layer with constant weights reads it" if made[index] else "no layer makes or reads it"


@dataclass(frozen=True, slots=True)
class _Demand:
    """What a grouped operator wants of some classes: equally many must stay of each of its `count` cells.

    cells: (width,) int64, the cell of each class, -1 where one lies in several.
    """

    node: str
    cells: Int64
    count: int

    @property
    def met(self) -> bool:
        """True if all classes together lie equally in all cells."""
        counts = np.bincount(np.maximum(self.cells, 0), minlength=self.count)
        return bool(self.cells.min() >= 0 and counts.min() == counts.max())


def _demands(found: Labelling, classes: Int64) -> list[_Demand]:
    demands = []
    for node, ids, cells in found.findings.balances:
        labels = found.classes.label[ids]
        inside = np.isin(labels, classes)
        if inside.any():
            place = np.searchsorted(classes, labels[inside])
            own = np.full(len(classes), -1)
            own[place] = cells[inside]
            own[place[own[place] != cells[inside]]] = -1
            demands.append(_Demand(node, own, int(cells.max()) + 1))
    return demands


def find_groups(
    footprints: Footprints, contractions: Sequence[Contraction], reasons: list[str | None], network: Network
) -> list[ChannelGroup]:
    """Return the groups of the free classes; what cannot be one gets its reason."""
    found = footprints.found
    groups = []
    for members in footprints.alike(reasons):
        classes = np.array(members, np.int64)
        demands = _demands(found, classes)
        unmet = [demand.node for demand in demands if not demand.met]
        if unmet:
            _pin(classes, reasons, f"{unmet[0]} is grouped, and these channels do not lie equally in all of its groups")
            continue
        kept, cells = _cells(len(classes), demands)
        _pin(np.delete(classes, kept), reasons, LEFT_OVER)
        classes = classes[kept]
        if int(cells.max()) + 1 < len(classes):
            group = _group(footprints, classes, cells, contractions)
            products = [
                item for item in found.findings.products if any(part.axis == item.left for part in group.slices)
            ]
            if products:
                whole = _multiplied(network, group, products)
                if isinstance(whole, str):
                    _pin(classes, reasons, whole)
                    continue
                group = whole
            groups.append(group)
        elif len(classes) == 1:
            _pin(classes, reasons, "it is a single channel, or all of its channels hang together as one")
        else:
            _pin(classes, reasons, "a grouped operator needs one channel of each of its groups")
    return groups


def _multiplied(network: Network, group: ChannelGroup, products: Sequence[Product]) -> ChannelGroup | str:
    """The group with the product that sums over it, or the reason why it stays."""
    if normalized(network, group):
        return f"{products[0].node}, a product of activations, sums over it, and a normalisation takes its statistics of it"
    if len(products) > 1:
        return f"{products[0].node} and {products[1].node}, products of activations, both sum over it"
    sides = (silencers_of(network, group, axis.tensor) for axis in (products[0].left, products[0].right))
    silencers = next((side for side in sides if side), None)
    if silencers is None or not group.producers:
        return f"{products[0].node} sums over it, a product of activations whose inputs are not zero where the layers that make them are"
    return replace(group, name=products[0].node, product=products[0], silencers=silencers)


def _pin(classes: Int64, reasons: list[str | None], reason: str) -> None:
    for index in classes.tolist():
        reasons[index] = reason


def _cells(width: int, demands: Sequence[_Demand]) -> tuple[Int64, Int64]:
    """Return which of `width` channels may go, and their cells, so that equally many of each cell meet every demand.

    Channels that no demand tells apart are in one cell. If such cells have different sizes, there are two ways. Cut into pieces of
    the greatest common divisor, each cell loses in proportion to its size, which keeps what is in balance in balance. Or, where every
    demand is met by equally many cells, only as many of each may go as the smallest has.
    """
    cells = np.zeros(width, np.int64)
    for demand in demands:
        cells = np.unique(cells * demand.count + demand.cells, return_inverse=True)[1].astype(np.int64)
    sizes = np.bincount(cells)
    smallest, divisor = int(sizes.min()), int(np.gcd.reduce(sizes))
    rank = np.zeros(width, np.int64)
    for cell in range(len(sizes)):
        rank[cells == cell] = np.arange(sizes[cell])
    even = all(len(np.unique(np.bincount(demand.cells[rank == 0]))) == 1 for demand in demands)
    if divisor < smallest and even:
        kept = np.flatnonzero(rank < smallest)
        return kept, cells[kept]
    if len(sizes) > 1:
        cells = np.unique(cells * width + rank // divisor, return_inverse=True)[1].astype(np.int64)
    return np.arange(width), cells


def _group(footprints: Footprints, classes: Int64, cells: Int64, contractions: Sequence[Contraction]) -> ChannelGroup:
    ids = np.stack([footprints.ids(index) for index in classes.tolist()])
    first = np.argsort(ids[:, 0], kind="stable")  # channels are numbered by their place on the first axis
    ids, cells = ids[first], cells[first]
    owners = footprints.owner[ids[0]]
    slices: dict[Axis, Slice] = {}
    for number in dict.fromkeys(owners.tolist()):
        axis = footprints.axes[number]
        start, size = footprints.found.starts[axis]
        slices[axis] = Slice(axis=axis, positions=ids[:, owners == number] - start, size=size)
    consumers = tuple(
        Consumer(contraction=c, positions=slices[c.rows].positions)
        for c in contractions
        if c.rows in slices and not c.whole_groups
    )
    producers = tuple(dict.fromkeys(c.node for c in contractions if c.output in slices and not c.whole_groups))
    return ChannelGroup(
        name=next(iter((*producers, *(c.node for c in consumers))), ""),
        width=len(classes),
        slices=tuple(slices.values()),
        producers=producers,
        consumers=consumers,
        cells=np.unique(cells, return_inverse=True)[1].astype(np.int64),
    )


def named(groups: Sequence[ChannelGroup], position: Mapping[str, int]) -> tuple[ChannelGroup, ...]:
    """Sort groups by their first node and name them after it; further groups with the same one get a number."""
    seen: dict[str, int] = {}
    result = []
    for group in sorted(groups, key=lambda g: min(position[n] for n in (*g.producers, *g.readers))):
        seen[group.name] = seen.get(group.name, 0) + 1
        result.append(group if seen[group.name] == 1 else replace(group, name=f"{group.name}#{seen[group.name]}"))
    return tuple(result)
