"""What goes to the terminal: names out of a file are shown as they are, never taken for markup or for orders to the terminal."""

import os
import sys
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text


def show(*parts: RenderableType) -> None:
    """Print tables and lines to stdout."""
    _Console(markup=False, emoji=False).print(*parts)


def printable(text: str) -> str:
    """Return `text` with characters that are not printed, other than line breaks, spelled out."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


class _Console(Console):
    def render_str(self, text: str, **options: Any) -> Text:
        """See `Console`."""
        return super().render_str(printable(text), **{**options, "markup": False, "emoji": False})

    def on_broken_pipe(self) -> None:
        """Whoever reads has seen enough: that is no failure."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
