"""Names of what is added to a graph."""

from itertools import count


def fresh(taken: set[str], stem: str) -> str:
    """Return `stem`, with a number where that is taken, and take it."""
    names = (stem if number == 1 else f"{stem}_{number}" for number in count(1))
    found = next(name for name in names if name not in taken)
    taken.add(found)
    return found
