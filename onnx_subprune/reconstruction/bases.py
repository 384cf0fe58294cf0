"""Other bases for the numbers of a head, in which the last ones matter least: then fewer of them lose less than any subset does.

Nothing nonlinear lies between the layers that make Q and K and their product, or between V and the layer that reads the context. So W_q, W_k become
W_q U, W_k V with U V' = 1, and W_v, W_o become W_v T, T^-1 W_o, head by head, and the model stays the same function. In the metric of the data:

    Q and K:     G_q^1/2 C_k^1/2 = P S R',   U = G_q^-1/2 P S^1/2,   V = C_k^-1/2 R S^1/2   (C_k: keys centred, since Softmax does not see their mean)
    V and W_o:   C_z^1/2 W_o = P S R',       T = C_z^-1/2 P S^1/2                           (C_z: the context, centred where there is a bias)

The first r are then the optimum over all factorisations of rank r (Eckart and Young). The usual groups, selection and refits go on from there: a subset of the
numbers is the special case of a basis that is not changed. Heads share the places of their numbers, so that every head loses as many. Streams that
nothing but sums lies on are a head of their own: see `linear_streams`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnx_subprune._typing import Array, Float64
from onnx_subprune.calibration.data.masks import Visible
from onnx_subprune.calibration.streaming.stream import Stream
from onnx_subprune.graph.channels import ChannelGraph, ChannelGroup, Slice, Use
from onnx_subprune.graph.linear_paths import LinearPath, linear_path
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.observing import made_before
from onnx_subprune.reconstruction.head_factors import WIDEST, Factors, factors, in_basis, pooled, wins
from onnx_subprune.reconstruction.linear_streams import Sides, fold_scales, stream_sides
from onnx_subprune.reconstruction.products import SEEN, key_axes, some_rows, visible_rows
from onnx_subprune.reconstruction.task import Task
from onnx_subprune.runtime.spill import Store


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Site:
    """A group whose basis may change: constants with its numbers on both sides, and the tensors that moments are taken of, one or two.

    keys: axes of the right one that count the keys of a sample, over which it is centred, none without a Softmax (`key_axes`). centred: the left one
    is, as a whole. shared: heads of queries that one of keys and values serves, one after another; these have one basis. stream: there are no heads, but
    maybe more readers than one.
    """

    group: ChannelGroup
    left: tuple[Slice, ...]
    right: tuple[Slice, ...]
    watched: tuple[Slice, ...]
    keys: tuple[int, ...] = ()
    centred: bool = False
    shared: int = 1
    stream: Sides | None = None


def sites(network: Network, graph: ChannelGraph) -> list[Site]:
    """Return the groups of `graph` whose numbers may be seen in another basis; not those of more than `WIDEST`."""
    found = []
    for group in (item for item in graph.groups if item.width <= WIDEST):
        if group.product is not None:
            found.append(_product_site(network, graph, group))
        else:
            found.append(_context_site(network, graph, group) or _stream_site(network, graph, group))
    return [site for site in found if site is not None]


def turned_weights(task: Task, *, grouped: bool = True) -> tuple[frozenset[str], Mapping[Use, Array]]:
    """Return the groups that lose less in another basis, on samples that it does not come from, and the weights in these; one pass, at most.

    grouped: heads of keys and values that serve several of queries, one after another, may have one.
    """
    network = task.network
    found = [site for site in sites(network, task.graph) if grouped or site.shared == 1]
    waiting = sorted(found, key=lambda site: _place(network, site))
    names, weights = set[str](), dict[Use, Array]()
    data = task.data.about(SEEN)
    if not waiting or data.chunk_count < 2:
        return frozenset(), {}
    with Store(task.memory) as store:
        stream = Stream(network, data, store, task.running)
        for number, site in enumerate(waiting):
            place = _place(network, site)
            tensors = [part.axis.tensor for later in waiting[number:] for part in later.watched]
            stream.advance(place, made_before(network, tensors, place))
            bases = _factors(network, site, _moments(site, stream, Visible(data, task.running.mask)))
            if bases is not None:
                names.add(site.group.name)
                turned_by(network, site, bases, weights)
        stream.close()
    return frozenset(names), weights


def _place(network: Network, site: Site) -> int:
    """Where the stream is when a site's moments are taken: all that is watched is there."""
    return max(network.position[label] for label in site.group.readers)


def _product_site(network: Network, graph: ChannelGraph, group: ChannelGroup) -> Site | None:
    """Q and K, where both come from layers without anything but changes of layout in between."""
    assert group.product is not None, "groups of products come here"
    watched, parts = [], []
    for axis in (group.product.left, group.product.right):
        path = linear_path(network, graph.observation, axis.tensor)
        if path is None:
            return None
        side = _widest(group, path)
        own = _constants(network, graph, group, path)
        if own is None or own[0].positions.shape != side.positions.shape:
            return None
        watched.append(side)
        parts.append(own)
    heads, grouped = (side.positions.shape[1] for side in watched)
    if heads % grouped:
        return None
    keys, shared = key_axes(network, graph.observation, group.product, watched[1]), heads // grouped
    return Site(group=group, left=parts[0], right=parts[1], watched=tuple(watched), keys=keys, shared=shared)


def _context_site(network: Network, graph: ChannelGraph, group: ChannelGroup) -> Site | None:
    """V and the layer that reads the context."""
    if len(group.consumers) != 1 or len(group.producers) != 1 or group.step > 1:
        return None
    contraction, positions = group.consumers[0].contraction, group.consumers[0].positions
    if contraction.op not in ("MatMul", "Gemm") or not graph.alone(contraction.weight):
        return None
    path = linear_path(network, graph.observation, contraction.input.tensor, through_attention=True)
    rows = next(part for part in group.slices if part.axis == contraction.rows)
    context = next((part for part in group.slices if part.axis == contraction.input), None)
    if path is None or context is None or context.positions.shape != positions.shape:
        return None
    last = {
        part.axis.tensor
        for part in group.slices
        if part.axis.index == len(graph.observation.shapes.get(part.axis.tensor, ())) - 1
    }
    if not last.issuperset(path.mixed):
        return None  # whole heads, which attention does not mix
    made = _constants(network, graph, group, path)
    if made is None or positions.shape[1] % made[0].positions.shape[1]:
        return None
    shared = positions.shape[1] // made[0].positions.shape[1]
    centred = contraction.bias is not None or contraction.new_bias is not None
    return Site(group=group, left=made, right=(rows,), watched=(context,), centred=centred, shared=shared)


def _stream_site(network: Network, graph: ChannelGraph, group: ChannelGroup) -> Site | None:
    """What nothing but sums lies on between layers."""
    sides = stream_sides(network, graph, group)
    if sides is None:
        return None
    centred = all(c.contraction.bias is not None or c.contraction.new_bias is not None for c in group.consumers)
    left, right = sides.written, sides.read
    return Site(group=group, left=left, right=right, watched=sides.watched, centred=centred, stream=sides)


def _widest(group: ChannelGroup, path: LinearPath) -> Slice:
    """The last tensor on a path that has all heads on one axis."""
    parts = {part.axis.tensor: part for part in group.slices if part.axis.use is None}
    there = [parts[name] for name in path.tensors if name in parts]
    most = max(part.positions.shape[1] for part in there)
    return [part for part in there if part.positions.shape[1] == most][-1]


def _constants(
    network: Network, graph: ChannelGraph, group: ChannelGroup, path: LinearPath
) -> tuple[Slice, ...] | None:
    """The weight and the biases that make one side, all with as many numbers a channel; None where one is not that side's alone."""
    found = [part for part in group.slices if part.axis.use in path.uses]
    if len(found) != len(path.uses) or not all(graph.alone(use) for use in path.uses):
        return None
    parts = [_taken(part, path) for part in found]
    if None in parts or len({part.positions.shape for part in parts if part is not None}) != 1:
        return None
    half = any(network.array(part.axis.tensor).dtype == np.float16 for part in found)
    return None if half else tuple(part for part in parts if part is not None)


def _taken(part: Slice, path: LinearPath) -> Slice | None:
    """What of a constant makes the outputs that a path takes; None where channels do not have equally many."""
    if not path.stop:
        return part
    inside = (part.positions >= path.start) & (part.positions < path.stop)
    counts = inside.sum(axis=1)
    if part.size != path.width or counts.min() != counts.max():
        return None
    return replace(part, positions=part.positions[inside].reshape(len(inside), -1))


def _moments(site: Site, stream: Stream, visible: Visible) -> list[list[Float64]]:
    """Return second moments, (r, w, w), of what is watched, over visible rows of the even and of the odd chunks."""
    names = list(dict.fromkeys(part.axis.tensor for part in site.watched))
    sums = [[[np.zeros(1), np.zeros(1), np.zeros(1)] for _ in site.watched] for _ in range(2)]
    for number, chunk in enumerate(stream.read(names)):
        for which, part in enumerate(site.watched):
            value = chunk[part.axis.tensor]
            axis = part.axis.index
            if site.stream is None:
                moved, shown = visible_rows(value, axis, visible, number, centred_over=site.keys if which else ())
            else:
                moved, shown = some_rows(value, axis, visible, number)
            heads = np.ascontiguousarray(moved.reshape(-1, moved.shape[-1])[:, part.positions.T].transpose(1, 0, 2))
            with np.errstate(over="ignore", invalid="ignore"):
                own = (heads.transpose(0, 2, 1) @ heads, heads.sum(axis=1), shown.sum())
            sums[number % 2][which] = [a + b for a, b in zip(sums[number % 2][which], own, strict=True)]
    return [[_centred(*item) if site.centred else item[0] for item in half] for half in sums]


def _centred(gram: Float64, total: Float64, count: Float64) -> Float64:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(gram - total[:, :, None] * total[:, None, :] / np.maximum(count, 1))


def _factors(network: Network, site: Site, halves: Sequence[Sequence[Float64]]) -> Factors | None:
    """The bases of both sides; None where they lose no less than a subset, or moments are infinite or no numbers."""
    refitted = site.group.product is None
    if refitted:
        weights = [_rows(network, part) for part in site.right]
        targets = [part @ part.transpose(0, 2, 1) for part in weights]
        if site.stream is not None:
            targets, halves = [_whole(targets)], [[_whole(half)] for half in halves]
        halves = [[*half, targets[0]] for half in halves]
    heads = len(halves[0][0])
    sides = [(half[0], np.repeat(half[1], heads // len(half[1]), axis=0)) for half in halves]
    finite = all(np.isfinite(moment).all() for side in sides for moment in side)
    if not finite or not wins(sides, refitted=refitted, shared=site.shared):
        return None
    return factors(*(pooled(sides[0][side] + sides[1][side], site.shared) for side in (0, 1)))


def _whole(moments: Sequence[Float64]) -> Float64:
    """(1, w, w), the sum of moments (r, w, w)."""
    return np.asarray(sum(item.sum(axis=0, keepdims=True) for item in moments))


def _rows(network: Network, part: Slice) -> Float64:
    """(r, w, m), the constant's numbers of each head."""
    value = np.moveaxis(network.array(part.axis.tensor).astype(np.float64), part.axis.index, 0)
    return np.asarray(value.reshape(len(value), -1)[part.positions.T])


def turned_by(network: Network, site: Site, bases: Factors, weights: dict[Use, Array]) -> None:
    """Write the constants of both sides in the new basis into `weights`."""
    if site.stream is not None:
        fold_scales(network, site.stream, weights)
    for parts, basis in ((site.left, bases.left), (site.right, bases.right)):
        for part in parts:
            assert part.axis.use is not None, "a constant has a use"
            own = np.repeat(basis, part.positions.shape[1] // len(basis), axis=0)
            value = weights.get(part.axis.use, network.array(part.axis.tensor))
            weights[part.axis.use] = in_basis(value, part, own)
