"""Functions of the user's own scripts."""

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from onnx_subprune.errors import DataError, meant


def script_named(source: str) -> tuple[Path, str] | None:
    """Return file and function of `script.py:function`, None if `source` is nothing like it."""
    named = re.fullmatch(r"(.+\.py):(\w+)", source)
    return (Path(named[1]), named[2]) if named else None


def load_function(path: Path, name: str) -> Callable[..., object]:
    """Run the script and return its function `name`; DataError if it fails or has none."""
    module_name = f"onnx_subprune_data_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses in the script look themselves up here
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise DataError(f"{path}: the script fails: {message_of(error)}") from error
    finally:
        sys.modules.pop(module_name, None)  # what the script loaded does not outlive it
    function = getattr(module, name, None)
    if not callable(function):
        raise DataError(
            f"{path}: has no function {name!r}{meant(name, _functions(module))} name one as {path.name}:FUNCTION"
        )
    return function  # type: ignore[no-any-return]  # whatever the script has under that name


def _functions(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]


def message_of(error: BaseException) -> str:
    """Return an error of the user's code in one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
