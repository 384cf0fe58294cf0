"""The command line: maps words to values, calls the API, prints. No logic."""

import io
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TextIO

from cyclopts import CycloptsError, UnusedCliTokensError

from onnx_subprune._version import __version__
from onnx_subprune.cli.application import COMMANDS, app, versions
from onnx_subprune.cli.terminal import printable
from onnx_subprune.errors import DataNote, ProviderNote, SubpruneError, VerificationError
from onnx_subprune.runtime.interrupts import end_like_ctrl_c
from onnx_subprune.runtime.memory import share_one_heap

NOTES = (DataNote, ProviderNote)
"""Warnings that are notes."""
LONGEST = 2000
"""Characters of an error: names in a file can be of any length."""


def load(tokens: Sequence[str]) -> None:
    """Load the command that is meant."""
    for name in _named(tokens):
        import_module(f"{__name__}.{name}")


def run(tokens: Sequence[str]) -> int:
    """Run the command line and return the exit status; errors, of whatever kind, are one line on stderr, and so is each note on the data."""
    try:
        with warnings.catch_warnings(record="--quiet" in tokens):
            for category in NOTES:
                warnings.filterwarnings("once", category=category)
            warnings.showwarning = _note  # type: ignore[assignment]  # the other arguments are of no use here
            if list(tokens) == ["--version"]:
                print(versions())  # in one line, however narrow the terminal
            else:
                app(tokens, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except CycloptsError as error:
        said = _said(error)
        return _fail(
            f"{said}{'' if said.endswith(('.', '?')) else '.'} See `{' '.join(['onnx-subprune', *_named(tokens), '--help'])}`.",
            2,
        )
    except VerificationError as error:
        return _fail(str(error), 1)
    except SubpruneError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt as error:
        return _fail(f"interrupted; {_left(error)}", 130)
    except MemoryError as error:
        return _fail(f"out of memory; {_left(error)}: use fewer --samples or a smaller --memory", 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # who reads has seen enough
    except OSError as error:
        about = f"{error.filename}: " if error.filename else ""
        return _fail(f"{about}{error.strerror or error}; {_left(error)}", 2)
    except Exception as error:
        return _fail(f"internal error: {_place(error)}; {_left(error)}; please report this line", 3)
    return 0


def _note(message: Warning | str, category: type[Warning], *_: object) -> None:
    kind = "note" if category in NOTES else "warning"
    print(f"{kind}: {printable(' '.join(str(message).split()))}", file=sys.stderr)


def _said(error: CycloptsError) -> str:
    """What is wrong with the words, in a line."""
    if isinstance(error, UnusedCliTokensError):
        return f"Too many arguments: {' '.join(error.unused_tokens or ())}."
    return " ".join(str(error).split())


def _named(tokens: Sequence[str]) -> list[str]:
    """The command that was meant, if there is such a one."""
    return [name for name in tokens[:1] if name in COMMANDS]


def _left(error: BaseException) -> str:
    """What the command has written before it failed."""
    return "; ".join(getattr(error, "__notes__", ())) or "nothing was written"


def _place(error: Exception) -> str:
    """What failed, and where."""
    frames = traceback.extract_tb(error.__traceback__)
    here = Path(__file__).parents[1].as_posix()
    inside = [frame for frame in frames if Path(frame.filename).as_posix().startswith(here)] or frames
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(inside[-3:]))
    return f"{type(error).__name__} at {where} (onnx-subprune {__version__}): {str(error)[:300]}"


def _fail(message: str, status: int) -> int:
    line = printable(" ".join(message.split()))
    print("error:", line if len(line) <= LONGEST else line[: LONGEST - 1] + "…", file=sys.stderr)
    return status


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


def main() -> None:
    """Entry point of the command."""
    sys.stdout = sys.stdout or _nowhere()  # closed by whoever started it
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an encoding that lacks a character of a name is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    share_one_heap()
    end_like_ctrl_c()
    sys.exit(run(sys.argv[1:]))
