"""JSON files beside the terminal's tables."""

import json
from pathlib import Path

from onnx_subprune.errors import OutputError
from onnx_subprune.output import free_path


def free_json(path: Path | None) -> None:
    """Check that the file can be written; an existing one is replaced."""
    if path is not None:
        free_path(path, force=True)


def write_json(path: Path | None, value: object) -> None:
    """Write `value`, if a path is given."""
    if path is not None:
        try:
            path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror})") from error
