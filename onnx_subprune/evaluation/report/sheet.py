"""A table as it is shown: lines without boxes for a terminal or a pipe, HTML for a notebook.

In a terminal a table fits its width: names are shortened in the middle, sentences are wrapped between words. In a pipe, and wherever no width is
given, nothing is shortened, so that names can be copied.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import zip_longest
from typing import Literal

GAP = 2
LEAST = 8
"""No column gets narrower."""


@dataclass(frozen=True, slots=True)
class Column:
    """A head and what stands below it. spare: left out where the table would not fit."""

    head: str
    kind: Literal["name", "number", "text"] = "name"
    spare: bool = False


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table with a title; every row has a cell for each column."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]

    def text(self, width: int | None = None) -> str:
        """Return lines of at most `width` characters, where that is possible; None for any length."""
        sheet = self if width is None else self._fitting(width)
        sizes = sheet._sizes(width)
        shared = [_alike([row[place] for row in sheet.rows]) for place in range(len(sheet.columns))]
        lines = [self.title] if width is None else textwrap.wrap(self.title, width) or [""]
        for row in (tuple(column.head for column in sheet.columns), *sheet.rows):
            cells = [
                _cell(text, column, size, alike)
                for text, column, size, alike in zip(row, sheet.columns, sizes, shared, strict=True)
            ]
            for parts in zip_longest(*cells, fillvalue=""):
                padded = (
                    part.rjust(size) if column.kind == "number" else part.ljust(size)
                    for part, column, size in zip(parts, sheet.columns, sizes, strict=True)
                )
                lines.append((" " * GAP).join(padded).rstrip())
        return "\n".join(lines)

    def html(self) -> str:
        """Return a table element."""
        head = "".join(f"<th{_side(column)}>{escape(column.head)}</th>" for column in self.columns)
        rows = (
            "".join(f"<td{_side(column)}>{escape(text)}</td>" for text, column in zip(row, self.columns, strict=True))
            for row in self.rows
        )
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return (
            f"<table><caption>{escape(self.title)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )

    def _fitting(self, width: int) -> "Sheet":
        """The same without spare columns, if it does not fit with them."""
        if sum(self._natural()) + GAP * (len(self.columns) - 1) <= width:
            return self
        kept = [place for place, column in enumerate(self.columns) if not column.spare]
        rows = tuple(tuple(row[place] for place in kept) for row in self.rows)
        return Sheet(self.title, tuple(self.columns[place] for place in kept), rows)

    def _natural(self) -> list[int]:
        return [
            max(len(column.head), *(len(row[place]) for row in self.rows), 0)
            for place, column in enumerate(self.columns)
        ]

    def _sizes(self, width: int | None) -> list[int]:
        """Characters of each column: numbers take what they need, the others share the rest."""
        sizes = self._natural()
        if width is None:
            return sizes
        flexible = [place for place, column in enumerate(self.columns) if column.kind != "number"]
        room = width - GAP * (len(sizes) - 1) - sum(sizes) + sum(sizes[place] for place in flexible)
        while flexible and sum(sizes[place] for place in flexible) > room:
            widest = max(flexible, key=lambda place: sizes[place])
            if sizes[widest] <= LEAST:
                break
            sizes[widest] -= 1
        return sizes


Part = Sheet | str


def text_of(parts: Sequence[Part], width: int | None = None) -> str:
    """Return parts with an empty line between tables; texts are wrapped at `width`."""
    blocks: list[str] = []
    for part in parts:
        if isinstance(part, Sheet):
            blocks += ["", part.text(width), ""]
        else:
            blocks.append(part if width is None else textwrap.fill(part, width, subsequent_indent="  "))
    lines = "\n".join(blocks).split("\n")
    kept = [line for place, line in enumerate(lines) if line or (place and lines[place - 1])]
    return "\n".join(kept).strip("\n")


def html_of(parts: Sequence[Part]) -> str:
    """Return parts as HTML, for a notebook."""
    return "".join(part.html() if isinstance(part, Sheet) else f"<p>{escape(part)}</p>" for part in parts)


def shortened(name: str, size: int, alike: int = 0) -> str:
    """Return a name of at most `size` characters, its middle left out where it is longer.

    alike: so many characters at its start say nothing, as they are the same for all names beside it; what follows on them is shown, whole if it fits.
    """
    if len(name) <= size:
        return name
    rest = len(name) - alike
    if alike > size // 2 and rest >= size:
        first = (size - 2) // 2
        return f"…{name[alike : alike + first]}…{name[len(name) - (size - 2 - first) :]}"
    tail = rest if alike and rest < size else size // 2
    return f"{name[: size - 1 - tail]}…{name[len(name) - tail :]}"


def _alike(names: Sequence[str]) -> int:
    """How many characters all names begin with."""
    if len(set(names)) < 2:
        return 0
    low, high = min(names), max(names)  # whatever is between them begins as they do
    return next((place for place, pair in enumerate(zip(low, high, strict=False)) if pair[0] != pair[1]), len(low))


def _cell(text: str, column: Column, size: int, alike: int) -> list[str]:
    if column.kind == "number" or len(text) <= size:
        return [text]
    if column.kind == "name":
        return [shortened(text, size, alike)]
    words = " ".join(shortened(word, size) for word in text.split())
    return textwrap.wrap(words, size, break_on_hyphens=False) or [""]


def _side(column: Column) -> str:
    return ' style="text-align:right"' if column.kind == "number" else ' style="text-align:left"'
