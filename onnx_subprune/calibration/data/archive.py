"""Members of an .npz file: mapped where they are stored as they are, unpacked no further than samples are wanted.

What a member takes is known from its header, before a byte of it is unpacked: a small file can unpack to more than any machine has.
"""

import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from onnx_subprune._typing import Array
from onnx_subprune.errors import DataError

MAPPED = 2**20
"""A member of more bytes is mapped."""
LOCAL_HEADER = 30
"""Bytes of a member's own header in the file, before its name."""
AT_ONCE = 1 << 24


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is read. samples: so many on the first axis are enough; None for all. memory: bytes that may be unpacked; None for any number."""

    samples: int | None = None
    memory: int | None = None


ALL = Extent()


@dataclass(frozen=True, slots=True)
class _Member:
    """An array in the file. head: bytes before its numbers. columns: numbers of a sample."""

    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fortran: bool
    head: int

    @property
    def columns(self) -> int:
        return math.prod(self.shape[1:])

    def bytes_of(self, samples: int | None) -> int:
        """Bytes of the first so many samples, or of all of them."""
        if samples is None or not self.shape or self.fortran:
            return math.prod(self.shape) * self.dtype.itemsize
        return min(samples, self.shape[0]) * self.columns * self.dtype.itemsize

    @property
    def mapped(self) -> bool:
        """True if its numbers stand in the file as they are, and are many."""
        stored = self.info.compress_type == zipfile.ZIP_STORED and not self.info.flag_bits & 1
        return stored and not self.fortran and self.bytes_of(None) > MAPPED


def read_archive(path: Path, extent: Extent = ALL) -> Mapping[str, Array]:
    """Return the arrays in the .npz file `path`: mapped ones whole, those that are unpacked to the extent that is wanted.

    Raises DataError where that is more than memory allows; ValueError, and what zipfile raises, for broken files.
    """
    samples, memory = extent.samples, extent.memory
    with zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): _member(archive, info) for info in archive.infolist()}
        counts = {member.shape[0] for member in members.values() if member.shape}
        if len(counts) > 1:
            samples = None  # what does not fit together is refused by who looks at all of it
        unpacked = sum(member.bytes_of(samples) for member in members.values() if not member.mapped)
        if memory is not None and unpacked > memory:
            raise DataError(
                f"{path}: unpacks to {unpacked / 1e9:.3g} GB, more than the {memory / 1e9:.3g} GB of --memory: use the first --samples, "
                "or save it with numpy.savez, which does not compress and is read piece by piece"
            )
        return {
            name: _mapped(path, member) if member.mapped else _unpacked(archive, member, samples)
            for name, member in members.items()
        }


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    if not info.filename.endswith(".npy"):
        raise ValueError(f"{info.filename!r} in it is no array")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise ValueError(f"{info.filename!r} in it has the version {version}")
        head = file.tell()
    if dtype.hasobject:
        raise ValueError(f"{info.filename!r} in it holds Python objects, which would have to be unpickled")
    member = _Member(info, tuple(shape), dtype, fortran, head)
    if any(size < 0 for size in shape) or head + member.bytes_of(None) != info.file_size:
        raise ValueError(f"{info.filename!r} in it has the shape {shape}, but {info.file_size - head} bytes")
    return member


def _mapped(path: Path, member: _Member) -> Array:
    with path.open("rb") as file:
        file.seek(member.info.header_offset)
        own = file.read(LOCAL_HEADER)
        if own[:4] != b"PK\x03\x04":
            raise ValueError(f"{member.info.filename!r} in it is not where the directory says")
        lengths = int.from_bytes(own[26:28], "little") + int.from_bytes(own[28:30], "little")
    start = member.info.header_offset + LOCAL_HEADER + lengths + member.head
    return np.memmap(path, member.dtype, "r", start, member.shape)


def _unpacked(archive: zipfile.ZipFile, member: _Member, samples: int | None) -> Array:
    wanted = member.bytes_of(samples)
    shape = member.shape
    if wanted < member.bytes_of(None):
        assert samples is not None
        shape = (samples, *shape[1:])
    array = np.empty(math.prod(shape), member.dtype)
    with archive.open(member.info) as file:
        file.read(member.head)
        _fill(file, memoryview(array.view(np.uint8).data), member.info.filename)
        if wanted == member.bytes_of(None):
            file.read(1)  # the end, where the checksum is looked at
    return array.reshape(shape, order="F" if member.fortran else "C")


def _fill(file: IO[bytes], buffer: memoryview, name: str) -> None:
    done = 0
    while done < len(buffer):
        piece = file.read(min(AT_ONCE, len(buffer) - done))
        if not piece:
            raise ValueError(f"{name!r} in it is cut off")
        buffer[done : done + len(piece)] = piece
        done += len(piece)
