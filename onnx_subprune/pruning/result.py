"""What `prune` returns."""

import os
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from onnx_subprune.errors import typed
from onnx_subprune.evaluation.report.model import Report
from onnx_subprune.graph.save import Settled, save_model, side_path
from onnx_subprune.graph.tensors import model_files
from onnx_subprune.runtime.files import check_apart, free_path


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pruned:
    """A smaller model and the report on it. folder: where its side files lie; `apart`: what keeps them there until it is saved."""

    model: ModelProto
    report: Report
    folder: Path | None
    side_file: bool
    apart: Settled | None = None

    def __str__(self) -> str:
        """Return the report's tables."""
        return str(self.report)

    def _repr_html_(self) -> str:
        """Return the report for a notebook."""
        return self.report._repr_html_()

    @typed("path", "force")
    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the model to `path` (and `path`.data for large weights), whole or not at all.

        Parameters
        ----------
        path
            Where it goes. The original and its side files are never written to.
        force
            Overwrite what is there, if it is no link, device or folder.

        Raises
        ------
        OutputError
            If it cannot be written there.

        """
        output, data = Path(path), side_path(Path(path))
        original = Path(self.report.model["path"])
        check_apart({"the output": output, "its side file": data}, model_files(original) if original.is_file() else ())
        for file in (output, data) if self.side_file else (output,):
            free_path(file, force=force)
        save_model(self.model, self.folder, output, side_file=self.side_file)
