"""Normalisations over all channels and positions of a sample, as PyTorch's GroupNorm of one group leaves its exporters.

    Reshape(x, (0, 1, -1)) -> InstanceNormalization -> Reshape(., Shape(x)) -> Mul by a scale for each channel

The three nodes are spelled out in `spelling`, where a constant says which channels count, and put back in the end.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from onnx_subprune.graph.normalization import Closed, Mean, Normalization, Place
from onnx_subprune.graph.operators import whole_shape
from onnx_subprune.graph.stored import Stored
from onnx_subprune.graph.writer import Writer

ONE_GROUP = (0, 1, -1)
"""Target of the first Reshape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flattened:
    """One of these. nodes: the three, in order. scale: where the scale is. positions: how many axes of positions there are."""

    nodes: tuple[NodeProto, NodeProto, NodeProto]
    scale: Place
    channels: int
    positions: int
    dtype: np.dtype[np.generic]

    @property
    def source(self) -> str:
        """What is normalised."""
        return str(self.nodes[0].input[0])

    @property
    def made(self) -> str:
        """What comes out, before it is scaled."""
        return str(self.nodes[2].output[0])


def flattened_in(nodes: Iterable[NodeProto], constants: Stored) -> list[Flattened]:
    """Return those among `nodes`, in order."""
    found = (_at(node, constants) for node in nodes if node.op_type == "InstanceNormalization" and not node.domain)
    return [item for item in found if item is not None]


def _at(node: NodeProto, constants: Stored) -> Flattened | None:
    first, back = constants.producer(node.input[0]), _only_reader(node.output[0], constants)
    if first is None or back is None or (first.op_type, back.op_type) != ("Reshape", "Reshape"):
        return None
    target, shape = constants.small(first.input[1]), constants.producer(back.input[1])
    plain = [constants.number(name) for name in node.input[1:3]] == [1.0, 0.0]
    if target is None or tuple(target.ravel().tolist()) != ONE_GROUP or _only_reader(node.input[0], constants) is None:
        return None
    if not plain or shape is None or not whole_shape(shape) or shape.input[0] != first.input[0]:
        return None
    scaled = _only_reader(back.output[0], constants)
    if scaled is None or scaled.op_type != "Mul":
        return None
    slot = next((at for at in (0, 1) if constants.known(scaled.input[at])), None)
    sizes = () if slot is None else _without_ones(constants.shape(scaled.input[slot]))
    dtype = None if slot is None else constants.floating(scaled.input[slot])
    if slot is None or dtype is None or len(sizes) < 2 or any(size > 1 for size in sizes[1:]):
        return None
    if constants.rank(first.input[0]) not in (0, len(sizes) + 1):  # 0: not known
        return None
    return Flattened(
        nodes=(first, node, back),
        scale=(scaled.output[0], slot),
        channels=sizes[0],
        positions=len(sizes) - 1,
        dtype=dtype,
    )


def _only_reader(name: str, constants: Stored) -> NodeProto | None:
    readers = constants.readers(name)
    return readers[0] if len(readers) == 1 and name not in constants.outputs else None


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without leading ones."""
    first = next((at for at, size in enumerate(shape) if size > 1), len(shape))
    return shape[first:]


def write_flattened(writer: Writer, item: Flattened, place: int) -> None:
    """Spell a normalisation over channels and positions out: means over positions first, then over the channels that count.

    place: which of its nodes is at hand; each of the first two gives way to a step of the mean.
    """
    y, axis = item.made, -1 - item.positions
    weights = np.full((item.channels, *(1,) * item.positions), 1 / item.channels, item.dtype)
    positions, first = [*range(axis + 1, 0)], len(writer.nodes)
    if place == 0:
        writer.average(positions, item.source, f"{y}/mean/positions")
    if place == 1:
        weight = writer.constant(f"{y}/mean/weight", weights)
        writer.add("Mul", [f"{y}/mean/positions", weight], f"{y}/mean/weighed")
    if place < 2:
        return
    writer.sum(f"{y}/mean/weighed", axis, f"{y}/mean")
    centred = writer.add("Sub", [item.source, f"{y}/mean"], f"{y}/centred")
    square = writer.add("Mul", [centred, centred], f"{y}/square")
    apart = writer.average(positions, square, f"{y}/variance/positions")
    weighed = writer.add("Mul", [apart, writer.constant(f"{y}/variance/weight", weights)], f"{y}/variance/weighed")
    writer.sum(weighed, axis, f"{y}/variance")
    epsilon = next((held.f for held in item.nodes[1].attribute if held.name == "epsilon"), 1e-5)
    small = writer.constant(f"{y}/epsilon", np.array(epsilon, item.dtype))
    shifted = writer.add("Add", [f"{y}/variance", small], f"{y}/shifted")
    writer.add("Div", [centred, writer.add("Sqrt", [shifted], f"{y}/root")], y)
    means = tuple(Mean(weighed=f"{y}/{name}/weighed", weight=f"{y}/{name}/weight") for name in ("mean", "variance"))
    made = tuple(held.output[0] for held in writer.nodes[first:])
    for node, spelled in zip(item.nodes, ((f"{y}/mean/positions",), (means[0].weighed,), made), strict=True):
        held = (shifted, 1) if node is item.nodes[1] else None
        writer.closed.append(Closed(node=node, spelled=spelled, means=means, epsilon=held))
    writer.normalizations.append(
        Normalization(
            source=item.source,
            means=means,
            centred=True,
            variance=f"{y}/variance",
            shifted=shifted,
            epsilon=(shifted, 1),
            scale=item.scale,
        )
    )
