"""Costs as sums of products of sizes, each linear in the widths of the groups or a whole number of blocks, and of tabulated functions of two."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil, prod

import numpy as np

from onnx_subprune._typing import Float64, Int64


@dataclass(frozen=True)
class Factor:
    """A size: offset + sum of slope * width over some groups; rounded up to whole blocks, and `extra` added where there is something.

    partial: what each of less than one block counts for, at most the whole block in all; 0 where they are rounded up too.
    """

    offset: float
    slopes: Mapping[str, int]
    block: int = 1
    extra: float = 0.0
    partial: float = 0.0

    def __hash__(self) -> int:
        return hash((self.offset, tuple(sorted(self.slopes.items()))))

    def at(self, widths: Mapping[str, int]) -> float:
        """Return the size at these widths."""
        size = self._channels(widths)
        if self.block == 1:
            return size
        whole = float(ceil(size / self.block) * self.block)
        if self.partial and size < self.block:
            whole = min(whole, size * self.partial)
        return whole + self.extra if size > 0 else whole

    def along(self, widths: Mapping[str, int], name: str, steps: Float64) -> Float64 | float:
        """Return the sizes, (n,) float64, when group `name` is wider by each of `steps`, (n,) float64; one number where they are all the same."""
        slope = self.slopes.get(name, 0)
        return self._whole(self._channels(widths) + slope * steps) if slope else self.at(widths)

    def _channels(self, widths: Mapping[str, int]) -> float:
        channels = 0
        for name, slope in self.slopes.items():
            channels += slope * widths[name]
        return self.offset + channels

    def _whole(self, sizes: Float64) -> Float64:
        if self.block == 1:
            return sizes
        whole = np.ceil(sizes / self.block) * self.block
        if self.partial:
            whole = np.where(sizes < self.block, np.minimum(whole, sizes * self.partial), whole)
        return np.where(sizes > 0, whole + self.extra, whole)


@dataclass(frozen=True, slots=True)
class Term:
    """coefficient times the product of the factors."""

    coefficient: float
    factors: tuple[Factor, ...]

    def at(self, widths: Mapping[str, int]) -> float:
        """Return the value at these widths."""
        value = self.coefficient
        for factor in self.factors:
            value *= factor.at(widths)
        return value

    def along(self, widths: Mapping[str, int], name: str, steps: Float64) -> Float64 | float:
        """Return the values, (n,) float64, when group `name` is wider by each of `steps`, (n,) float64; see `Factor.along`."""
        values: Float64 | float = self.coefficient
        for factor in self.factors:
            values = values * factor.along(widths, name, steps)
        return values


@dataclass(frozen=True, slots=True)
class Grid:
    """Values, (reads, writes), at pairs of sizes, both ascending; linear between them, constant beyond, 0 where a size is 0."""

    reads: tuple[float, ...]
    writes: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]

    def at(self, read: Float64, written: Float64) -> Float64:
        """Return the values, (n,), at n pairs of sizes."""
        rows = np.array([np.interp(written, self.writes, row) for row in self.values])
        place = np.interp(read, self.reads, np.arange(len(self.reads)))
        low = np.minimum(place.astype(np.int64), len(self.reads) - 1)
        high, share, each = np.minimum(low + 1, len(self.reads) - 1), place - low, np.arange(rows.shape[1])
        found = (1.0 - share) * rows[low, each] + share * rows[high, each]
        return np.where((read > 0) & (written > 0), found, 0.0)


@dataclass(frozen=True, slots=True)
class Tabulated:
    """coefficient times what `grid` has at two sizes: what a layer reads, and what it writes; and times the factors after these, if there are any."""

    coefficient: float
    factors: tuple[Factor, ...]
    grid: Grid

    def at(self, widths: Mapping[str, int]) -> float:
        """Return the value at these widths."""
        read, written, *others = (factor.at(widths) for factor in self.factors)
        return self.coefficient * float(self.grid.at(np.array([read]), np.array([written]))[0]) * prod(others)

    def along(self, widths: Mapping[str, int], name: str, steps: Float64) -> Float64:
        """Return the values, (n,) float64, when group `name` is wider by each of `steps`, (n,) float64."""
        read, written, *others = np.broadcast_arrays(*(factor.along(widths, name, steps) for factor in self.factors))
        values = self.coefficient * self.grid.at(read, written)
        for other in others:
            values = values * other
        return values


@dataclass(frozen=True, slots=True)
class Multilinear:
    """A cost: the sum of its terms. `full` are the widths of the unpruned model, which groups have that are not mentioned.

    base: what is said without any widths, {}, where pruning by itself adds something; None: the cost at full widths. Terms of equal factors, as of a layer
    that is there once for every step of time, become one.
    """

    terms: tuple[Term | Tabulated, ...]
    full: Mapping[str, int]
    base: float | None = None
    _by_group: Mapping[str, Mapping[int, Term | Tabulated]] = field(init=False, repr=False, compare=False)
    _neighbours: Mapping[str, frozenset[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", _merged(self.terms))
        index: dict[str, dict[int, Term | Tabulated]] = defaultdict(dict)
        for place, term in enumerate(self.terms):
            for name in {name for factor in term.factors for name in factor.slopes}:
                index[name][place] = term
        object.__setattr__(self, "_by_group", dict(index))
        near = {
            name: frozenset(other for term in terms.values() for factor in term.factors for other in factor.slopes)
            for name, terms in index.items()
        }
        object.__setattr__(self, "_neighbours", near)

    def __call__(self, widths: Mapping[str, int]) -> float:
        """Return the cost at these widths; without any, of the model as it is."""
        if not widths and self.base is not None:
            return self.base
        complete = {**self.full, **widths}
        return sum(term.at(complete) for term in self.terms)

    def change(self, widths: Mapping[str, int], name: str, width: int) -> float:
        """Return how the cost changes when group `name` gets `width`; `widths` must name every group."""
        terms, changed = self.of(name).values(), {**widths, name: width}
        return sum(term.at(changed) for term in terms) - sum(term.at(widths) for term in terms)

    def changes(self, widths: Mapping[str, int], name: str, options: Int64) -> Float64:
        """Return `change` for each of the widths `options`, (n,) int64, as (n,) float64.

        Exact where several factors of a term depend on the group: the cost is a polynomial of its width, not a line.
        """
        steps = np.asarray(options - widths[name], np.float64)
        total = np.zeros(len(steps))
        for term in self.of(name).values():
            total += term.along(widths, name, steps) - term.at(widths)
        return total

    def of(self, name: str) -> Mapping[int, Term | Tabulated]:
        """Return the terms that depend on the width of `name`, by their places."""
        return self._by_group.get(name, {})

    def neighbours(self, name: str) -> frozenset[str]:
        """Return the groups whose changes depend on the width of `name`, itself among them."""
        return self._neighbours.get(name, frozenset((name,)))


def _merged(terms: Iterable[Term | Tabulated]) -> tuple[Term | Tabulated, ...]:
    """Terms with the same factors as one, in the order of the first of each."""
    found: dict[tuple[object, ...], Term | Tabulated] = {}
    for term in terms:
        key = (term.factors, term.grid if isinstance(term, Tabulated) else None)
        known = found.get(key)
        found[key] = term if known is None else replace(known, coefficient=known.coefficient + term.coefficient)
    return tuple(found.values())


class Tally:
    """A cost while one width after the other changes: only the terms of that group are evaluated, and all are added up, to the same number as from scratch."""

    def __init__(self, cost: Multilinear, widths: Mapping[str, int]) -> None:
        self._cost, self._widths = cost, {**cost.full, **widths}
        self._values = [term.at(self._widths) for term in cost.terms]

    @property
    def total(self) -> float:
        """The cost at the current widths."""
        return sum(self._values)

    def after(self, name: str, width: int) -> tuple[float, float]:
        """Return what the cost would be if group `name` got `width`, and `Multilinear.change`."""
        values, changed = self._values.copy(), self._changed(name, width)
        for place, value in changed.items():
            values[place] = value
        return sum(values), sum(changed.values()) - sum(self._values[place] for place in changed)

    def move(self, name: str, width: int) -> None:
        """Give group `name` another width."""
        for place, value in self._changed(name, width).items():
            self._values[place] = value
        self._widths[name] = width

    def _changed(self, name: str, width: int) -> dict[int, float]:
        widths = {**self._widths, name: width}
        return {place: term.at(widths) for place, term in self._cost.of(name).items()}
