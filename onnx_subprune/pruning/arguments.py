"""What the verbs take, as values: names and numbers in place of what they stand for, and one clear error for anything of another type."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

from onnx_subprune.allocation import Allocator, Macs, MarginalCost, Threshold, Uniform
from onnx_subprune.errors import ArgumentTypeError, OptionError, meant, shown
from onnx_subprune.pruning.budgets.budget import Budget
from onnx_subprune.reconstruction.finetuning.settings import FineTune
from onnx_subprune.reconstruction.settings import Asymmetric, Formulation, Layerwise, Refit, Sequential
from onnx_subprune.selection import ProbingSelector, Selector, selectors

FormulationName = Literal["asymmetric", "sequential", "layerwise"]
if TYPE_CHECKING:
    SelectorName = str
else:
    SelectorName = Literal[tuple(selectors(0))]  # a selector is named in one place
AllocatorName = Literal["sensitivity", "uniform", "threshold"]
BudgetLike = Budget | float
FormulationLike = Formulation | FormulationName
SelectorLike = Selector | ProbingSelector | SelectorName
AllocatorLike = Allocator | AllocatorName
RefitLike = Refit | bool | None
FineTuneLike = FineTune | int | str | bool | None
Patterns = str | Sequence[str]

FORMULATIONS: Mapping[str, Formulation] = {
    "asymmetric": Asymmetric(),
    "sequential": Sequential(),
    "layerwise": Layerwise(),
}
ALLOCATORS: Mapping[str, Allocator] = {
    "sensitivity": MarginalCost(),
    "uniform": Uniform(),
    "threshold": Threshold(),
}
T = TypeVar("T")


def budget_of(value: BudgetLike) -> Budget:
    """Return the budget; a number is the fraction of the multiply-accumulates to keep."""
    if isinstance(value, (int, float)):
        return Macs(float(value))
    return _kind(
        "budget", value, get_args(Budget), "0.5, Macs(0.5), Params(0.5), Latency(0.5), Channels(0.5) or MaxDrop(...)"
    )


def formulation_of(value: FormulationLike) -> Formulation:
    """Return the formulation that a name stands for."""
    found = FORMULATIONS[_known("formulation", value, FORMULATIONS)] if isinstance(value, str) else value
    return _kind("formulation", found, (Formulation,), _names(FORMULATIONS, "Asymmetric()"))


def selector_of(value: SelectorLike) -> Selector | ProbingSelector:
    """Return the selector that a name stands for; those that draw at random have the seed 0 then."""
    if isinstance(value, str):
        return selectors(0)[_known("selector", value, selectors(0))]
    return _able("selector", value, ("path", "scores"), _names(selectors(0), "Forward()"))


def allocator_of(value: AllocatorLike) -> Allocator:
    """Return the allocator that a name stands for."""
    if isinstance(value, str):
        return ALLOCATORS[_known("allocator", value, ALLOCATORS)]
    return _able("allocator", value, ("allocate",), _names(ALLOCATORS, "Uniform()"))


def refit_of(value: RefitLike) -> Refit | None:
    """Return how weights are refitted; True is the default, False is None, not at all."""
    if isinstance(value, bool):
        return Refit() if value else None
    return None if value is None else _kind("refit", value, (Refit,), "True, False or Refit(...)")


def finetune_of(value: FineTuneLike, seed: int = 0) -> FineTune | None:
    """Return how the result is fine-tuned: a number of steps, a text with that or a time ("90s", "5min", "1h"), True for the default, None for not at all."""
    if value is None or value is False:
        return None
    if value is True:
        return FineTune(seed=seed)
    if isinstance(value, int):
        return FineTune(steps=value, seed=seed)
    if not isinstance(value, str):
        return _kind("finetune", value, (FineTune,), "2000, '5min', True or FineTune(...)")
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(s|min|h)?", value.strip())
    if found is None or float(found[1]) == 0 or (found[2] is None and not found[1].isdigit()):
        raise OptionError(
            f"--finetune {value}: write a number of steps, such as 2000, or a time, such as 90s, 5min or 1h"
        )
    if found[2] is None:
        return FineTune(steps=int(found[1]), seed=seed)
    return FineTune(seconds=float(found[1]) * {"s": 1, "min": 60, "h": 3600}[found[2]], seed=seed)


def patterns_of(option: str, value: Patterns) -> tuple[str, ...]:
    """Return patterns; a text alone is one of them."""
    found = (value,) if isinstance(value, str) else value
    if (
        not isinstance(found, Collection)
        or isinstance(found, (Mapping, bytes))
        or not all(isinstance(item, str) for item in found)
    ):
        raise ArgumentTypeError(f"{option} is {shown(value)}: give a name or a list of names, globs, or 'op:Conv'")
    return tuple(found)


def value_of(option: str, value: T, kinds: type | tuple[type, ...], takes: str) -> T:
    """Return `value`; ArgumentTypeError, which says what the argument takes, where it is of none of these types."""
    return _kind(option, value, kinds if isinstance(kinds, tuple) else (kinds,), takes)


def _kind(option: str, value: T, kinds: tuple[type, ...], takes: str) -> T:
    if not isinstance(value, kinds):
        raise ArgumentTypeError(f"{option} is {shown(value)}: give {takes}")
    return value


def _able(option: str, value: T, methods: Sequence[str], takes: str) -> T:
    if isinstance(value, type) or not any(callable(getattr(value, name, None)) for name in methods):
        raise ArgumentTypeError(f"{option} is {shown(value)}: give {takes}")
    return value


def _known(option: str, name: str, names: Collection[str]) -> str:
    if name not in names:
        like = meant(name, names, f": it is one of {', '.join(map(repr, names))}")
        raise OptionError(f"{option} {name!r} is not known{like}")
    return name


def _names(names: Collection[str], example: str) -> str:
    return f"one of {', '.join(map(repr, names))}, or a value such as {example}"
