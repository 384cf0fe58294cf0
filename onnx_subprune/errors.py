"""The exceptions of onnx_subprune, and the check that arguments are of the types that they are declared with.

SubpruneError            everything this package raises on purpose; the message is one line that says what to do
├── ModelError           the model cannot be read, is not valid, or is of a kind that is refused
├── DataError            the calibration data cannot be read or does not fit the model
├── BudgetError          the budget is not reachable
├── OptionError          an option names nothing, contradicts another one, or is out of range
│   └── ArgumentTypeError  an argument is of a type that is not taken (a TypeError, too)
├── ClusterError         the cluster cannot be reached, or does not do what it is asked
├── OutputError          the result cannot be written where it was asked for
└── VerificationError    the result is not what it must be; nothing was written
    └── FidelityError    the result is too far from the original
"""

import inspect
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import wraps
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import numpy as np


def meant(name: str, names: Iterable[str], otherwise: str = ";") -> str:
    """Return the question whether another name was meant, that of `names` which is like this one, whatever the case; `otherwise` if none is."""
    plain = {item.lower(): item for item in sorted(names, reverse=True)}
    near = get_close_matches(name.lower(), plain, 1)
    return f"; did you mean {plain[near[0]]!r}?" if near else otherwise


class SubpruneError(Exception):
    """Base of all errors of this package; the text is one line: what happened, where, what to try."""


class ModelError(SubpruneError):
    """The model cannot be read, is not valid, or is of a kind that is refused."""


class NotFiniteError(ModelError):
    """What a layer reads or puts out on the data holds infinity, or no number."""


class DataError(SubpruneError):
    """The calibration data cannot be read or do not fit the model."""


class DataNote(UserWarning):
    """Something that is done to the calibration data and changes nothing, such as another element type for the same numbers."""


class ProviderNote(UserWarning):
    """That what was to run on an execution provider runs on the processor, or that results of the provider are not used for a decision."""


class BudgetError(SubpruneError):
    """No choice of widths reaches the budget."""


class OptionError(SubpruneError):
    """An option names nothing in the model, contradicts another one, or is out of range."""


class ArgumentTypeError(OptionError, TypeError):
    """An argument is of a type that is not taken; the message says which are."""


class ClusterError(SubpruneError):
    """The cluster cannot be reached, or does not do what it is asked."""


class OutputError(SubpruneError):
    """The result cannot be written where it was asked for."""


class VerificationError(SubpruneError):
    """The result failed its verification or missed its bound; nothing was written."""


class FidelityError(VerificationError):
    """The result is no better than a constant, or misses a gate of the user's; nothing was written."""


def at_least(least: int, **settings: int | None) -> None:
    """Raise OptionError for settings that are smaller; None is no number."""
    for name, value in settings.items():
        if value is not None and value < least:
            raise OptionError(f"{name} {value}: at least {least}")


F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
WORDS: Mapping[object, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
    os.PathLike: "a path",
    Mapping: "a dictionary",
    NoneType: "None",
}
"""What a type is called in an error."""
LISTS = (tuple, list, Sequence, Iterable)
"""Types whose items are looked at."""


def typed(*names: str) -> Callable[[F], F]:
    """Decorate a function: its arguments of these names are of the types that they are declared with, or ArgumentTypeError is raised.

    A text for which only some words are declared is an OptionError where it is another one.
    """

    def decorated(function: F) -> F:
        signature = inspect.signature(function)
        hints = {name: signature.parameters[name].annotation for name in names}

        @wraps(function)
        def checked(*places: Any, **words: Any) -> Any:
            given = _bound(signature, places, words)
            for name, hint in hints.items():
                if name in given:
                    check(name, given[name], hint)
            return function(*places, **words)

        return checked  # type: ignore[return-value]  # it is called like the function

    return decorated


def typed_fields(kind: type[T]) -> type[T]:
    """Decorate a dataclass: its fields are of the types that they are declared with, or ArgumentTypeError is raised as a value is made."""
    made: Callable[..., None] = kind.__init__
    signature = inspect.signature(made)

    @wraps(made)
    def checked(self: T, *places: Any, **words: Any) -> None:
        for name, value in _bound(signature, (self, *places), words).items():
            if name != "self":
                check(f"{kind.__name__}: {name}", value, signature.parameters[name].annotation)
        made(self, *places, **words)

    kind.__init__ = checked  # type: ignore[method-assign, assignment]
    return kind


def _bound(signature: inspect.Signature, places: Sequence[Any], words: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments by name; none where there are too many or too few, which the call itself tells."""
    try:
        return signature.bind(*places, **words).arguments
    except TypeError:
        return {}


def check(option: str, value: object, hint: Any) -> None:
    """Raise ArgumentTypeError, which says what is taken, where `value` is of no type of `hint`, OptionError for a word that is none of those."""
    kinds = _kinds(hint)
    if any(_fits(value, kind) for kind in kinds):
        return
    if isinstance(value, str) and any(isinstance(item, str) for kind in kinds for item in _choices(kind)):
        raise OptionError(f"{option} {value!r} is not known: give {described(hint)}")
    raise ArgumentTypeError(f"{option} is {shown(value)}: give {described(hint)}")


def shown(value: object) -> str:
    """Return what a value is, for an error about its type."""
    return f"the class {value.__name__}, not a value" if isinstance(value, type) else f"of type {type(value).__name__}"


def described(hint: Any) -> str:
    """Return in words what is taken."""
    kinds = _kinds(hint)
    said = dict.fromkeys(_word(kind) for kind in kinds if not (kind is str and "a path" in map(_word, kinds)))
    return " or ".join(said)


def _kinds(hint: Any) -> Sequence[Any]:
    """The types of a union, or the one."""
    if get_origin(hint) in (Union, UnionType):
        return [kind for part in get_args(hint) for kind in _kinds(part)]
    return [NoneType if hint is None else hint]


def _choices(kind: Any) -> Sequence[object]:
    return get_args(kind) if get_origin(kind) is Literal else ()


def _fits(value: object, kind: Any) -> bool:
    origin = get_origin(kind) or kind
    if kind is Any:
        return True
    if origin is Literal:
        return any(type(value) is type(item) and value == item for item in get_args(kind))
    if origin in (int, float):
        number = Integral if origin is int else Real
        return isinstance(value, number) and not isinstance(value, bool)
    if origin is bool:
        return isinstance(value, (bool, np.bool_))
    if origin is Callable or _is_function(kind):
        return callable(value) and not isinstance(value, type)
    if getattr(origin, "_is_protocol", False) and origin.__module__.startswith("onnx_subprune"):
        return not isinstance(value, type) and all(hasattr(value, name) for name in _members(origin))
    if not isinstance(value, (tuple, list) if origin is tuple else origin) or (
        isinstance(value, (str, bytes)) and origin not in (str, bytes)
    ):
        return False
    parts = get_args(kind)
    if origin is tuple and Ellipsis not in parts:
        return len(value) == len(parts) and all(map(_suits, value, parts))
    if isinstance(value, Mapping) and len(parts) == 2 and isinstance(parts[1], type):
        return all(isinstance(item, parts[1]) for item in value.values())
    if origin in LISTS and isinstance(value, Collection) and parts:
        return all(_suits(item, parts[0]) for item in value)
    return True


def _suits(value: object, hint: Any) -> bool:
    return any(_fits(value, kind) for kind in _kinds(hint))


def _is_function(kind: Any) -> bool:
    """True for a protocol of what is called."""
    return getattr(kind, "_is_protocol", False) and "__call__" in vars(kind)


def _members(kind: type) -> Iterable[str]:
    return [name for name in vars(kind) if not name.startswith("_")]


def _word(kind: Any) -> str:
    origin = get_origin(kind) or kind
    if origin is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if origin is tuple and Ellipsis not in get_args(kind):
        return f"a tuple of {len(get_args(kind))}, each {described(get_args(kind)[0])}"
    if origin in LISTS and get_args(kind):
        return f"a list, each {described(get_args(kind)[0])}"
    if origin is Mapping and isinstance(get_args(kind)[-1], type):
        return f"a dictionary, each value {described(get_args(kind)[-1])}"
    if origin is Callable or _is_function(kind):
        return "a function"
    return WORDS.get(origin, f"{getattr(origin, '__name__', origin)}(...)")
