"""Collecting: the moments of one shard of the original model at every contraction that reads channels of a prunable group.

The data are gone through chunk by chunk; activations are held for one block of chunks at a time, so that neither memory nor disk
grows with the number of samples. Contractions whose sums do not fit into memory together take turns: one pass over the data each.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from threadpoolctl import threadpool_limits

from onnx_subprune._typing import Array
from onnx_subprune._version import __version__
from onnx_subprune.calibration.data.reading import Shard
from onnx_subprune.calibration.files.file import Writer, writing
from onnx_subprune.calibration.files.header import MODULUS, Header, Settings, chunk_digest, model_digest
from onnx_subprune.calibration.files.sums import Sums
from onnx_subprune.calibration.moments.accumulator import Collector
from onnx_subprune.calibration.moments.triangle import size_of
from onnx_subprune.calibration.streaming.settings import Running
from onnx_subprune.calibration.streaming.stream import Stream
from onnx_subprune.graph.channels import ChannelGraph, Contraction
from onnx_subprune.graph.content_sizes import sized_by_content
from onnx_subprune.graph.contractions.reading import kernel_of
from onnx_subprune.graph.network import Network
from onnx_subprune.runtime.files import free_path
from onnx_subprune.runtime.progress import Watch
from onnx_subprune.runtime.session import environment
from onnx_subprune.runtime.spill import Store

BLOCK = 16
"""Chunks that share one session: making it costs little beside running it on so many."""
PAIR = 16
"""Bytes of an unrounded sum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Shard `index`, from 0, of `count`."""

    index: int = 0
    count: int = 1


def readers_of_groups(network: Network, graph: ChannelGraph) -> tuple[Contraction, ...]:
    """Return every contraction that reads channels of some group, in topological order; those that carry them on (depthwise) are refitted, too."""
    lost = {part.axis for group in graph.groups for part in group.slices}
    found = [item for item in graph.contractions if item.rows in lost]
    return tuple(sorted(found, key=lambda item: network.position[item.node]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a collection runs with. memory: bytes."""

    running: Running
    memory: int
    watch: Watch


def collect(
    network: Network,
    graph: ChannelGraph,
    shard: Shard,
    part: Part,
    path: Path,
    means: Means,
    *,
    force: bool = False,
) -> None:
    """Write the moments of `shard`, which is `part` of the data, to `path`, whole or not at all. Raises SubpruneError."""
    free_path(path, force=force)
    contractions = readers_of_groups(network, graph)
    passes = _passes(network, contractions, means.memory // 2)
    settings = Settings(
        weights=tuple(contraction.weight for contraction in contractions),
        passes=tuple(len(turn) for turn in passes),
        samples=shard.samples,
        chunk=shard.data.chunk,
        package=__version__,
        onnxruntime=environment()["onnxruntime"],
        shapes=shard.example.shapes,
    )
    digest = sum(chunk_digest(number, chunk) for number, chunk in enumerate(shard.data.chunks(), shard.first))
    header = Header(
        model=model_digest(network),
        settings=settings,
        shard=(part.index, part.count) if part.count > 1 else None,
        data=f"{digest % MODULUS:064x}",
    )
    with threadpool_limits(1), writing(path) as file:
        file.header(header)
        first = 0
        for turn, chosen in enumerate(passes):
            label = "collecting" if len(passes) == 1 else f"collecting, pass {turn + 1} of {len(passes)}"
            _collect(network, chosen, first, shard, file, means, label)
            first += len(chosen)


def _collect(
    network: Network,
    contractions: Sequence[Contraction],
    first: int,
    shard: Shard,
    file: Writer,
    means: Means,
    label: str,
) -> None:
    """One pass over the shard; contractions are numbered from `first`."""
    count = min(2, shard.chunks)
    sized = sized_by_content(network)

    def empty(item: Contraction) -> Collector:
        return Collector(kernel_of(network, item)[0], ragged=shard.data.ragged or item.input.tensor in sized)

    sums = [[empty(item) for _ in range(count)] for item in contractions]
    names = list(dict.fromkeys(item.input.tensor for item in contractions))
    mine = shard.data.chunk_count
    for number, tensors in enumerate(_tensors(network, names, shard, means)):
        for item, halves in zip(contractions, sums, strict=True):
            halves[(shard.first + number) % count].add(tensors[item.input.tensor])
        means.watch(label, number + 1, mine)
    for index, halves in enumerate(sums, first):
        for half, collector in enumerate(halves):
            total = Sums()
            total.add(collector.state())
            file.sums(index, half, total)


def _tensors(network: Network, names: Sequence[str], shard: Shard, means: Means) -> Iterator[Mapping[str, Array]]:
    mine = shard.data.chunk_count
    for start in range(0, mine, BLOCK):
        with Store(means.memory // 2) as store:
            block = shard.data.part(start, min(start + BLOCK, mine))
            yield from Stream(network, block, store, means.running).read(names)


def _passes(network: Network, contractions: Sequence[Contraction], memory: int) -> list[list[Contraction]]:
    """Runs of contractions whose sums, of two halves, take at most `memory` bytes; at least one each."""
    passes: list[list[Contraction]] = []
    left = 0
    for contraction in contractions:
        groups, p, _ = kernel_of(network, contraction)[1].shape
        size = 2 * PAIR * groups * size_of(p)
        if not passes or size > left:
            passes.append([])
            left = memory
        passes[-1].append(contraction)
        left -= size
    return passes
