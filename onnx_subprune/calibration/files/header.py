"""What a file of moments says about itself, so that only moments that belong together are ever added.

`data` is a sum over chunks, modulo 2^256, of sha256(number of the chunk, its samples): it adds up over shards, and the whole has
the same digest however it was cut.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.external_data_helper import uses_external_data

from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.example import Shapes
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.tensors import tensor_array

FORMAT = "onnx-subprune statistics"
SCHEMA = 4
MODULUS = 1 << 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What must be equal for moments to add up.

    weights: of the contractions, as their nodes use them. passes: how many contractions each pass over the data takes. shapes: of a run on the data.
    """

    weights: tuple[Use, ...]
    passes: tuple[int, ...]
    samples: int
    chunk: int
    package: str
    onnxruntime: str
    shapes: Shapes


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """model: `model_digest`. shard: its number, from 0, and of how many; None for moments of all the data. data: see the module."""

    model: str
    settings: Settings
    shard: tuple[int, int] | None
    data: str

    @property
    def halves(self) -> int:
        """Sums over the even and over the odd chunks; of a single chunk there is one."""
        return min(2, -(-self.settings.samples // self.settings.chunk))

    def added(self, other: "Header") -> "Header":
        """Return the header of both shards together."""
        return replace(self, data=f"{(int(self.data, 16) + int(other.data, 16)) % MODULUS:064x}")

    def to_array(self) -> NDArray[np.uint8]:
        """Return the header as bytes of JSON."""
        text = json.dumps({"format": FORMAT, "schema": SCHEMA, **asdict(self)}, sort_keys=True)
        return np.frombuffer(text.encode(), np.uint8)

    @classmethod
    def from_array(cls, array: NDArray[np.generic]) -> "Header":
        """Undo `to_array`; ValueError if that is not possible."""
        try:
            found = json.loads(np.asarray(array, np.uint8).tobytes())
            if found["format"] != FORMAT:
                raise ValueError("not a file of moments")
            if found["schema"] != SCHEMA:
                raise ValueError(f"written in format {found['schema']}, this version reads {SCHEMA}")
            given = found["settings"]
            settings = Settings(
                **{
                    **given,
                    "weights": tuple(Use(str(item["node"]), int(item["slot"])) for item in given["weights"]),
                    "passes": tuple(map(int, given["passes"])),
                    "shapes": _shapes(given["shapes"]),
                }
            )
            shard = None if found["shard"] is None else (int(found["shard"][0]), int(found["shard"][1]))
            int(found["data"], 16)
            header = cls(model=str(found["model"]), settings=settings, shard=shard, data=found["data"])
        except (KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError("its header is incomplete") from error
        if not header.possible:
            raise ValueError("its header speaks of samples or shards that cannot be")
        return header

    @property
    def possible(self) -> bool:
        """True if its numbers are such as `collect` writes."""
        samples, chunk = self.settings.samples, self.settings.chunk
        if not (type(samples) is int and type(chunk) is int and 0 < chunk <= samples < 1 << 48):
            return False
        if sum(self.settings.passes) != len(self.settings.weights) or min(self.settings.passes, default=0) < 0:
            return False
        return self.shard is None or 0 <= self.shard[0] < self.shard[1] <= -(-samples // chunk)


def _shapes(given: Mapping[str, Any]) -> Shapes:
    sizes = {str(name): tuple(map(int, shape)) for name, shape in given["sizes"].items()}
    if int(given["samples"]) < 1 or min((size for shape in sizes.values() for size in shape), default=0) < 0:
        raise ValueError("its header has no sizes of inputs")
    return Shapes(
        sizes=sizes,
        samples=int(given["samples"]),
        stacked=tuple(map(str, given["stacked"])),
        free=bool(given["free"]),
    )


def named(shard: tuple[int, int]) -> str:
    """Return a shard as the command line has it: I/N, counted from 1."""
    return f"{shard[0] + 1}/{shard[1]}"


def model_digest(network: Network) -> str:
    """Return a digest of the model with all its weights, those in side files included."""
    digest = hashlib.sha256(network.given.SerializeToString(deterministic=True))
    for tensor in network.given.graph.initializer:
        if uses_external_data(tensor):
            digest.update(np.ascontiguousarray(tensor_array(tensor, network.folder)).tobytes())
    return digest.hexdigest()


def chunk_digest(number: int, chunk: Mapping[str, NDArray[np.generic]]) -> int:
    """Return the summand of one chunk."""
    digest = hashlib.sha256(str(number).encode())
    for name, array in sorted(chunk.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return int.from_bytes(digest.digest(), "big")
