"""Costs as sums of products of sizes, each size linear in the widths of the groups."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Factor:
    """A size: offset + sum of slope * width over some groups."""

    offset: float
    slopes: Mapping[str, int]

    def __hash__(self) -> int:
        return hash((self.offset, tuple(sorted(self.slopes.items()))))

    def at(self, widths: Mapping[str, int]) -> float:
        """Return the size at these widths."""
        return self.offset + sum(slope * widths[name] for name, slope in self.slopes.items())


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


@dataclass(frozen=True, slots=True)
class Multilinear:
    """A cost: the sum of its terms. `full` are the widths of the unpruned model, which groups have that are not mentioned."""

    terms: tuple[Term, ...]
    full: Mapping[str, int]
    _by_group: Mapping[str, tuple[Term, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        index: dict[str, list[Term]] = defaultdict(list)
        for term in self.terms:
            for name in {name for factor in term.factors for name in factor.slopes}:
                index[name].append(term)
        object.__setattr__(self, "_by_group", {name: tuple(terms) for name, terms in index.items()})

    def __call__(self, widths: Mapping[str, int]) -> float:
        """Return the cost at these widths."""
        complete = {**self.full, **widths}
        return sum(term.at(complete) for term in self.terms)

    def change(self, widths: Mapping[str, int], name: str, width: int) -> float:
        """Return how the cost changes when group `name` gets `width`; `widths` must name every group."""
        terms = self._by_group.get(name, ())
        return sum(term.at({**widths, name: width}) for term in terms) - sum(term.at(widths) for term in terms)
