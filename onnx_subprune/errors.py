"""The exceptions of onnx_subprune.

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

from collections.abc import Iterable
from difflib import get_close_matches


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
