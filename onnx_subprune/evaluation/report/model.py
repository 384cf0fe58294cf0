"""The report of a pruning run, as it is printed and written."""

import os
from dataclasses import dataclass
from pathlib import Path

from onnx_subprune.errors import typed
from onnx_subprune.evaluation.report.extra import need_extra
from onnx_subprune.evaluation.report.notebook import notebook_html, warned
from onnx_subprune.evaluation.report.sheet import text_of
from onnx_subprune.evaluation.report.table import report_table
from onnx_subprune.evaluation.report.values import Reported
from onnx_subprune.runtime.files import json_text, replacing


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Reported):
    """All that a run tells."""

    def __str__(self) -> str:
        """Return the warnings and tables that the command prints, with full names."""
        return text_of((*warned(self), *report_table(self)))

    def _repr_html_(self) -> str:
        """Return the same for a notebook, with the curves of the groups."""
        return notebook_html(self)

    @typed("path")
    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the report to `path`."""
        with replacing(Path(path)) as new:
            new.write_text(json_text(self.to_dict()), encoding="utf-8")

    @typed("path")
    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write the report to `path` as one self-contained page; OptionError where the extra `report` is not installed."""
        need_extra()
        from onnx_subprune.evaluation.report.html import report_html  # noqa: PLC0415 - an extra

        with replacing(Path(path)) as new:
            new.write_text(report_html(self), encoding="utf-8")
