"""The command; see the package."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .model import Model
from .runs import Runs
from .table import table_of


def main(words: Sequence[str]) -> int:
    """Run the command that is described above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1, help="what an open first axis of an input is taken for")
    parser.add_argument("--block", type=int, default=16, help="channels that convolutions compute at once: 8 with AVX2")
    parser.add_argument("--shape", action="append", default=[], metavar="INPUT=SIZES")
    parser.add_argument("--providers", nargs="+", default=[], metavar="NAME", help="such as CUDAExecutionProvider")
    given = parser.parse_args(words)
    shapes = {
        name: [int(size) for size in sizes.split(",")] for name, sizes in (item.split("=") for item in given.shape)
    }
    model = Model(given.model.read_bytes(), given.model.parent)
    runs = Runs(given.threads, given.model.parent, [(name, {}) for name in given.providers])
    try:
        made = table_of(model, model.feeds(given.batch, shapes), runs, block=given.block)
    except ValueError as error:
        raise SystemExit(f"error: {given.model}: {error}") from error
    given.output.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
