"""Whom progress is reported to."""

from typing import Protocol


class Watch(Protocol):
    """Is called with progress: steps done, of how many, and what at."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report one step."""


def silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""
