"""JSON and HTML files beside the terminal's tables."""

import json
from collections.abc import Sequence
from pathlib import Path

from onnx_subprune.allocation.widths import GroupSensitivity
from onnx_subprune.errors import OutputError
from onnx_subprune.evaluation.report import Report
from onnx_subprune.evaluation.report.extra import need_extra
from onnx_subprune.graph.save import free_path


def free_json(path: Path | None) -> None:
    """Check that the file can be written; an existing one is replaced."""
    if path is not None:
        free_path(path, force=True)


def write_json(path: Path | None, value: object) -> None:
    """Write `value`, if a path is given."""
    if path is not None:
        _write(path, json.dumps(value, indent=1) + "\n")


def free_html(path: Path | None) -> None:
    """Check that the file can be written, and that what HTML needs is installed, before any work is done."""
    if path is not None:
        need_extra()
        free_path(path, force=True)


def write_report(path: Path | None, report: Report) -> None:
    """Write a run as HTML, if a path is given."""
    if path is not None:
        from onnx_subprune.evaluation.report.html import report_html  # noqa: PLC0415 - an extra

        _write(path, report_html(report))


def write_sensitivities(path: Path | None, found: Sequence[GroupSensitivity], model: str) -> None:
    """Write sensitivities as HTML, if a path is given."""
    if path is not None:
        from onnx_subprune.evaluation.report.html import sensitivity_html  # noqa: PLC0415 - an extra

        _write(path, sensitivity_html(found, model))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from error
