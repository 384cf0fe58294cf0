"""What layers of one shape take at a grid of widths: a model of convolutions or products side by side, one for each pair of widths, is timed."""

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise
from math import prod

import numpy as np

from .runs import Row, Runs
from .wire import number_of, text_of

WRITTEN = (1, 2, 4)
"""Blocks of outputs that are timed: kernels compute up to four at once, and read the inputs once for these."""
WIDE = 4
"""Blocks from which on what half of a layer takes is known from the whole and a quarter of it."""
AGAIN, DOUBT = 2, 0.1
"""How often a grid is timed whose times contradict each other by this share."""


def without(spent: float, overhead: float) -> float:
    """Return what a node takes by itself, where noting it down takes `overhead`."""
    return max(spent - overhead, spent / 5)


def _grid(width: int, block: int, unit: int, blocks: Sequence[int] = (1,)) -> list[int]:
    """The whole width, half of it, so many blocks, half of one, and the least, ascending; multiples of `unit`."""
    half = -(-width // (2 * block)) * block
    sizes = (unit, block // 2, *(count * block for count in blocks), half, width)
    return sorted({size for size in sizes if 0 < size <= width and size % unit == 0} | {width})


def measured(shape: Row, block: int, runs: Runs, overhead: float, seconds: float, most: float = math.inf) -> Row:
    """Return the milliseconds of a layer of this shape at each pair of widths: `reads` x `writes`, one row where each channel goes by itself.

    Fewer channels than a block are read in the plain layout, which has to be made of a block first. seconds, most: see `Runs.profiled`; times that
    contradict each other are taken again only where that fits into what is left of `most`.
    """
    own = shape.get("groups") == "own"
    unit = int(str(shape.get("groups", 1))) if not own else 1
    reads = _grid(int(str(shape["read"])), block, unit)
    writes = _grid(int(str(shape["written"])), block, unit, (1,) if own else WRITTEN)
    pairs = [(0, column) for column in range(len(writes))] if own else list(np.ndindex(len(reads), len(writes)))
    wide = not own and min(len(reads), len(writes)) > 1 and min(reads[-2], writes[-2]) >= WIDE * block
    mixed = [(len(reads) - 2, len(writes) - 1), (len(reads) - 1, len(writes) - 2)] if wide else []
    pairs = [pair for pair in pairs if pair not in mixed]
    text, feeds = _side_by_side(shape, reads, writes, pairs)
    values = np.full((1 if own else len(reads), len(writes)), np.inf)
    begun = runs.spent
    for _ in range(AGAIN):
        moved, before = list[float](), runs.spent
        for event in runs.profiled(text, feeds, seconds=seconds, most=begun + most - before):
            name = event["name"].removesuffix("_nchwc").removeprefix("fused ")
            if name.startswith("layer "):
                place = tuple(int(number) for number in name.split()[1:])
                values[place] = min(values[place], without(event["ms"], overhead))
            elif event["op"] == "ReorderInput":
                moved.append(without(event["ms"], overhead) / event["inputs"][0][1])
        if mixed:
            values[tuple(zip(*mixed, strict=True))] = np.sqrt(values[-1, -1] * values[-2, -2])
        values = np.where(np.isinf(values), 0.0, values)
        likely = _likely(values.T, writes, block).T
        likely = likely if own else _likely(likely, reads, block)
        if np.allclose(likely, values, rtol=DOUBT) or 2.0 * runs.spent - before > begun + most:
            break
    values = likely
    if not own and reads[-1] >= block and moved:
        values += np.array([[read if read < block else 0] for read in reads]) * statistics.median(moved)
    return {"reads": [0] if own else reads, "writes": writes, "ms": values.tolist()}


def _likely(values: np.ndarray, sizes: Sequence[int], block: int) -> np.ndarray:
    """Return the times, (sizes, n), none longer than those of fewer channels, as often as there are more: other work came between.

    Whole blocks alone follow that: what is no multiple of them may run in other kernels.
    """
    found = values.copy()
    whole = [place for place, size in enumerate(sizes) if size % block == 0]
    for low, high in pairwise(whole):
        most = found[low] * sizes[high] / sizes[low]
        found[high] = np.where(found[high] > (1.0 + DOUBT) * most, most, found[high])
    return found


def _side_by_side(
    shape: Row, reads: Sequence[int], writes: Sequence[int], pairs: Sequence[tuple[int, ...]]
) -> tuple[bytes, dict[str, np.ndarray]]:
    """A model with one layer for each pair of widths, and what it is fed; what a layer makes is pooled, so that its memory is used again."""
    generator, own = np.random.default_rng(0), shape.get("groups") == "own"
    rows, size = list(shape["rows"]), list(shape.get("map", ()))
    parts, feeds, outputs = list[bytes](), dict[str, np.ndarray](), list[bytes]()
    width = 1 if own else max(reads) // int(str(shape.get("groups", 1)))
    noise = 0.1 * generator.standard_normal(width * max(writes) * prod(shape.get("kernel", ())), np.float32)
    for row, column in pairs:
        read, written = writes[column] if own else reads[row], writes[column]
        source = f"input {read}"
        if source not in feeds:
            dims = [*rows, read] if shape["op"] == "MatMul" else [*rows, read, *size]
            feeds[source] = generator.standard_normal(dims, np.float32)
        made, weight = f"layer {row} {column}", f"weight {row} {column}"
        groups = read if own else int(str(shape.get("groups", 1)))
        kernel = [read, written] if shape["op"] == "MatMul" else [written, read // groups, *shape["kernel"]]
        if shape["op"] == "ConvTranspose":
            kernel[:2] = [read, written // groups]
        options = {**shape.get("options", {}), "group": [groups]} if shape["op"] != "MatMul" else {}
        attributes = [
            text_of(5, text_of(1, key), *(number_of(8, v) for v in value), number_of(20, 7))
            for key, value in options.items()
            if key != "group"
        ]
        attributes += [text_of(5, text_of(1, "group"), number_of(3, groups), number_of(20, 2))] if options else []
        parts.append(
            text_of(
                1,
                *(text_of(1, name) for name in (source, weight)),
                text_of(2, made),
                text_of(3, made),
                text_of(4, shape["op"]),
                *attributes,
            )
        )
        value = noise[: prod(kernel)].tobytes()
        parts.append(
            text_of(5, *(number_of(1, dim) for dim in kernel), number_of(2, 1), text_of(8, weight), text_of(9, value))
        )
        pooled, pool = f"pooled {row} {column}", "ReduceMax" if shape["op"] == "MatMul" else "GlobalAveragePool"
        parts.append(text_of(1, text_of(1, made), text_of(2, pooled), text_of(3, pooled), text_of(4, pool)))
        outputs.append(text_of(12, text_of(1, pooled), text_of(2, text_of(1, number_of(1, 1)))))
    for name, array in feeds.items():
        sizes = b"".join(text_of(1, number_of(1, dim)) for dim in array.shape)
        parts.append(text_of(11, text_of(1, name), text_of(2, text_of(1, number_of(1, 1), text_of(2, sizes)))))
    graph = text_of(7, *parts, *outputs, text_of(2, "layers"))
    return number_of(1, 8) + graph + text_of(8, text_of(1, ""), number_of(2, 13)), feeds
