"""The command line: maps words to values, calls the API, prints. No logic."""

import sys
from collections.abc import Sequence

from cyclopts import CycloptsError

from onnx_subprune.cli import collect, compare, inspect, merge, prune, sensitivity
from onnx_subprune.cli.application import app
from onnx_subprune.errors import SubpruneError, VerificationError
from onnx_subprune.runtime.memory import share_one_heap

COMMANDS = (prune, inspect, sensitivity, compare, collect, merge)
"""Modules whose import registers a command."""


def run(tokens: Sequence[str]) -> int:
    """Run the command line and return the exit status; errors are one line on stderr."""
    try:
        app(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _fail(f"{' '.join(str(error).split())} See `onnx-subprune {' '.join(tokens[:1])} --help`.", 2)
    except VerificationError as error:
        return _fail(str(error), 1)
    except SubpruneError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was written", 130)
    except MemoryError:
        return _fail("out of memory: use fewer --samples or a smaller --memory", 2)
    return 0


def _fail(message: str, status: int) -> int:
    print("error:", " ".join(message.split()), file=sys.stderr)
    return status


def main() -> None:
    """Entry point of the command."""
    share_one_heap()
    sys.exit(run(sys.argv[1:]))
