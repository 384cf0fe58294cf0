"""How the help of the commands is divided, and the words that options take."""

from collections.abc import Sequence
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


def share(kind: Any, tokens: Sequence[Token]) -> float:
    """Return a number, or a percentage as the fraction that it is."""
    del kind
    text = tokens[0].value.strip()
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no fraction: write it like 0.5 or 50%") from error
