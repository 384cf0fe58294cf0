"""What the driver of a cluster tells its workers, and what these answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx_subprune._typing import Array
from onnx_subprune.calibration.dask.shipment import Shipment
from onnx_subprune.calibration.moments.halves import Collected
from onnx_subprune.calibration.streaming.request import Request, Share
from onnx_subprune.calibration.streaming.target import Cut, Left
from onnx_subprune.graph.channels import Use
from onnx_subprune.runtime.providers import Provider


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Open:
    """Start the models on one shard: chunks from number `first` on, of `total` in all.

    original: the model alongside, None for none; empty where it is the same. left, places: see `Original`.
    """

    model: bytes
    original: bytes | None
    left: Mapping[str, Left]
    places: tuple[int, ...]
    folder: Path | None
    data: Shipment
    batch_size: int
    rows: Mapping[str, int]
    opaque: frozenset[str]
    mask: str | None
    threads: int
    providers: tuple[Provider, ...]
    memory: int
    first: int
    total: int


@dataclass(frozen=True, slots=True)
class Advance:
    """See `Lockstep.advance`."""

    position: int
    also: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AdvanceOriginal:
    """See `Lockstep.advance_original`."""

    position: int
    also: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Override:
    """See `Lockstep.override`."""

    use: Use
    value: Array


Command = Open | Advance | AdvanceOriginal | Override | Cut | Share
"""A share was asked about: whoever comes from the start looks at the same chunks on the way, so that what it computes is rounded as it was."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Message:
    """Commands from number `start` of a shard's list on, then a question. plugin: where this driver's shards are kept."""

    plugin: str
    run: str
    shard: int
    start: int
    commands: Sequence[Command]
    request: Request


@dataclass(frozen=True, slots=True)
class Behind:
    """These shards were not where they were thought to be."""

    shards: tuple[int, ...]


Answer = Collected | Behind
