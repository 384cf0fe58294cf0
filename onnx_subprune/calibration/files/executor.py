"""Moments read from a file instead of taken from running models: the layerwise formulation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.files.file import StatisticsFile
from onnx_subprune.calibration.files.header import model_digest, named
from onnx_subprune.calibration.moments.halves import Collected
from onnx_subprune.calibration.streaming.executor import Lockstep
from onnx_subprune.calibration.streaming.request import Request
from onnx_subprune.calibration.streaming.settings import Running
from onnx_subprune.calibration.streaming.target import Cut, Original
from onnx_subprune.errors import DataError
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.network import Network


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """An `Executor` that runs nothing: it answers from a file of moments of the original model."""

    file: StatisticsFile

    @classmethod
    def open(cls, file: StatisticsFile, network: Network, model: Path | str) -> "Recorded":
        """Check that `file` holds all moments of `network`; DataError if it does not."""
        header = file.header
        if header.model != model_digest(network):
            raise DataError(f"{file.path}: moments of another model than {model}: collect those of this one")
        if header.shard is not None:
            raise DataError(
                f"{file.path}: shard {named(header.shard)} alone: `onnx-subprune merge` it with the others first"
            )
        return cls(file)

    def begin(
        self, network: Network, data: Calibration, running: Running, memory: int, *, original: Original | None
    ) -> Lockstep:
        """See `Executor`."""
        assert original is None, "moments of the original model serve the layerwise formulation only"
        return _Answers(self.file, network)


class _Answers:
    """`Lockstep` in which nothing moves: the pruned model's inputs are those of the original."""

    def __init__(self, file: StatisticsFile, network: Network) -> None:
        self._file, self._network = file, network
        self._numbers = {use: number for number, use in enumerate(file.header.settings.weights)}

    def advance(self, position: int, also: Sequence[str] = ()) -> None:
        """See `Lockstep`."""

    def advance_original(self, position: int, also: Sequence[str]) -> None:
        """See `Lockstep`."""

    def override(self, use: Use, value: NDArray[np.generic]) -> None:
        """See `Lockstep`."""

    def cut(self, cut: Cut) -> None:
        """See `Lockstep`."""

    def collect(self, request: Request) -> Collected:
        """See `Lockstep`."""
        assert not request.question.original, "moments of the original model serve the layerwise formulation only"
        node, slot = request.weight.node, request.weight.slot
        if request.weight not in self._numbers:
            raise DataError(f"{self._file.path}: no moments of {node}: collect again with this version")
        number = self._numbers[request.weight]
        groups, columns, _ = request.kernel.to_matrix(self._network.array(self._network.node(node).input[slot])).shape
        sums = [
            self._file.collector(number, half, request.kernel, groups, columns)
            for half in range(self._file.header.halves)
        ]
        if len({item.state()["shape"].tobytes() for item in sums}) > 1:
            raise DataError(
                f"{self._file.path}: the sums of {node} are of samples of different sizes: the file is damaged"
            )
        return Collected(tuple(sums))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held."""
