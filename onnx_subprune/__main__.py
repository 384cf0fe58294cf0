"""The command, also as `python -m onnx_subprune`."""

import gc
import sys
from importlib import import_module


def main() -> None:
    """Load the command and run it; interrupted while it loads, it has done nothing."""
    gc.disable()  # what is loaded stays: looking through it takes a tenth of the time
    try:
        command = import_module("onnx_subprune.cli")
        command.load(sys.argv[1:])
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted; nothing was written\n")
        sys.exit(130)
    gc.freeze()
    gc.enable()
    command.main()


if __name__ == "__main__":
    main()
