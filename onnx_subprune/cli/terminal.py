"""What goes to the terminal: names out of a file are shown as they are, never taken for orders to the terminal."""

import shutil
import sys
from collections.abc import Iterable

from onnx_subprune.evaluation.report import Report, report_table
from onnx_subprune.evaluation.report.sheet import Part, text_of


def show(*parts: Part, quiet: bool = False, wide: bool = False) -> None:
    """Print tables and lines to stdout, unless `quiet`: in the width of a terminal, unless `wide`; a pipe or a file gets them whole."""
    if quiet:
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() and not wide else None
    print(printable(text_of(parts, width)))


def warn(warnings: Iterable[str]) -> None:
    """Print warnings to stderr, a line each."""
    for warning in warnings:
        print("warning:", printable(" ".join(warning.split())), file=sys.stderr)


def tell(report: Report, *, quiet: bool, wide: bool) -> None:
    """Print the warnings of a run to stderr and, unless `quiet`, its tables to stdout."""
    warn(report.warnings)
    show(*report_table(report), quiet=quiet, wide=wide)


def printable(text: str) -> str:
    """Return `text` with characters that are not printed, other than line breaks, spelled out."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
