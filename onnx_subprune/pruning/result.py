"""What `prune` returns."""

import os
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from onnx_subprune.evaluation.report.model import Report
from onnx_subprune.graph.save import Settled, free_path, save_model


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pruned:
    """A smaller model and the report on it. folder: where its side files lie; `apart`: what keeps them there until it is saved."""

    model: ModelProto
    report: Report
    folder: Path | None
    side_file: bool
    apart: Settled | None = None

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the model to `path` (and `path`.data for large weights), whole or not at all; OutputError if that fails."""
        free_path(Path(path), force=force)
        save_model(self.model, self.folder, Path(path), side_file=self.side_file)
