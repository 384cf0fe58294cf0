"""How the help of the commands is divided, and the words that options take."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cyclopts import Group, Token

BUDGET = Group("Budget (give one)", sort_key=1)
DATA = Group("Data", sort_key=2)
WHERE = Group("What may be pruned", sort_key=3)
QUALITY = Group("Quality", sort_key=4)
SPEED = Group("Speed", sort_key=5)
GATES = Group("Gates", sort_key=6)
RESOURCES = Group("Resources", sort_key=7)
OUTPUT = Group("Output", sort_key=8)
STDOUT = Path("-")
"""Where `--json -` goes, alone."""


def share(kind: Any, tokens: Sequence[Token]) -> float:
    """Return a number, or a percentage as the fraction that it is."""
    del kind
    text = tokens[0].value.strip()
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no fraction: write it like 0.5 or 50%") from error


def count_or_share(kind: Any, tokens: Sequence[Token]) -> float:
    """Return a number, or a percentage as the fraction below 1 that it is: from 1 on a number is a count."""
    found, text = share(kind, tokens), tokens[0].value.strip()
    if text.endswith("%") and found >= 1.0:
        raise ValueError(f"{text!r} leaves nothing: write a share below 100%, or a number of samples")
    return found


def times(kind: Any, tokens: Sequence[Token]) -> float:
    """Return how many times as fast: 2, or 2x."""
    del kind
    text = tokens[0].value.strip()
    try:
        return float(text.removesuffix("x"))
    except ValueError as error:
        raise ValueError(
            f"{text!r} is no factor: write it like 1.5 or 2; a share of the time goes to --latency, like 50%"
        ) from error


def multiple(kind: Any, tokens: Sequence[Token]) -> int | str:
    """Return a number of channels, or auto."""
    del kind
    text = tokens[0].value.strip()
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no number of channels: write it like 16, or auto") from error


def json_path(kind: Any, tokens: Sequence[Token]) -> Path:
    """Return where JSON goes: a file, or - for stdout."""
    del kind
    text = tokens[0].value
    if text.startswith("-") and Path(text) != STDOUT:
        raise ValueError(f"{text!r} is an option, no file: write --json FILE, or --json - for stdout")
    return Path(text)
