"""When a result is too bad to be written, and when it is bad enough for a warning.

A result is *ruined* where an output is no better than a constant: it is not finite; or its choices agree with the original's about as often as by
chance (beyond doubt, where its scores rise and fall with the original's), or hardly any of those that are rare is made; or its error is at or above the
deviation of the original from its mean, unless its choices say otherwise (scores that all moved alike are still scores), or it is smaller than the
original and still rises and falls with it (no constant does). It is *poor* where an error is above 0.3, or above half of what a constant makes and no
choices say otherwise, or an agreement below 0.9 although the error is not small, or below what chance and a few hits make.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite

from onnx_subprune.errors import OptionError, typed_fields
from onnx_subprune.evaluation.measures import OFTEN, Fidelity, OutputFidelity

ERROR, AGREEMENT = 0.3, 0.9
"""A relative error above this, or an agreement below, is worth a warning."""
CHANCE, CHOICES = 0.1, 0.25
"""Choices are made by chance where the agreement is at most so much of the way from chance to 1; up to `CHOICES` they do not outweigh the error."""
FAR = 0.7
"""Where the error is below so much of what a constant makes, choices are between equals, and say nothing."""
MOST = 0.5
"""Where both models choose the same for this share of the samples, the result is poor at worst."""
ALONG = 0.5
"""An output with at least this correlation rises and falls with the original."""
SAME = 0.9
"""Where choices agree by chance for more than this share of the samples, they say nothing."""
NONE = 0.05
"""Where nearly all choices are the same, a model that makes no more than so much of the others has lost them, as the faces of a detector."""
RARE = 0.8
"""Where nearly all samples are of one class, an agreement that is less than so much of the way from chance to 1 says that the others are missed."""
DISTANT = 0.5
"""So far from the original, in units of what it varies by, an output follows it loosely: a quarter of what varies is lost."""
CLOSE = 0.15
"""So near to the original, in units of what it varies by, other choices are between equals: of the coordinates of a face, say, which are no scores."""


@typed_fields
@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """What a result must be, so that it is returned or written at all.

    accept_any: also one that is no better than a constant. min_agreement: least agreement with the original of every output that has one; max_error:
    largest relative error of every output, each in place of the warning. Raises OptionError for bounds that make no sense.
    """

    accept_any: bool = False
    min_agreement: float | None = None
    max_error: float | None = None

    def __post_init__(self) -> None:
        if self.min_agreement is not None and not 0.0 <= self.min_agreement <= 1.0:
            raise OptionError(
                f"--min-agreement {self.min_agreement}: a share of the samples, from 0 to 1, or from 0% to 100%"
            )
        if self.max_error is not None and not self.max_error >= 0.0:
            raise OptionError(f"--max-error {self.max_error}: a relative error, at least 0")

    @property
    def asked(self) -> bool:
        """True if the user set any."""
        return self != Gates()


def ruined(fidelity: Fidelity) -> str | None:
    """Return in what way the result is no better than a constant; None if it is not so."""
    return next(
        (reason for name, item in fidelity.outputs.items() if (reason := _ruined(name, item)) is not None), None
    )


def _ruined(name: str, item: OutputFidelity) -> str | None:
    error = item.relative_error
    if error is not None and not isfinite(error):
        return f"output {name!r} is not finite"
    against = item.standardized_error if item.standardized_error is not None else error
    if _lost(item, against):
        return f"output {name!r} makes {item.recalled:.1%} of the rarer choices of the original, with which it agrees by chance"
    telling = item.chance is not None and item.chance <= SAME and not item.signs
    beyond = item.beyond_chance if telling else None
    if beyond is not None and item.agreement is not None and item.agreement >= MOST:
        return None
    along = error is not None and error < 1.0 and item.correlation is not None and item.correlation >= ALONG
    doubt = (item.agreement_spread or 0.0) / (1.0 - (item.chance or 0.0)) if along and beyond is not None else 0.0
    if beyond is not None and beyond + doubt <= CHANCE and (against is None or against > FAR):
        return f"output {name!r} agrees with the original for {item.agreement:.1%} of the samples, by chance it would for {item.chance:.1%}"
    if against is not None and against >= 1.0 and (beyond is None or beyond <= CHOICES) and not along:
        beside = "" if item.standardized_error is None else f", {against:.3g} times that of the best constant"
        return f"output {name!r} is no better than a constant: its relative error is {error:.3g}{beside}"
    return None


def missed(fidelity: Fidelity, gates: Gates) -> str | None:
    """Return which gate of the user's the result misses; None if it passes."""
    if gates.min_agreement is not None and all(item.agreement is None for item in fidelity.outputs.values()):
        return "no output is a vector of scores or of integers, so that --min-agreement bounds nothing"
    if gates.max_error is not None and all(item.relative_error is None for item in fidelity.outputs.values()):
        return "no output is of floating-point numbers, so that --max-error bounds nothing"
    for name, item in fidelity.outputs.items():
        if gates.min_agreement is not None and item.agreement is not None and item.agreement < gates.min_agreement:
            return f"output {name!r} agrees with the original for {item.agreement:.1%} of the samples, --min-agreement is {gates.min_agreement:.1%}"
        error = item.relative_error
        if gates.max_error is not None and error is not None and not error <= gates.max_error:
            return f"output {name!r} has a relative error of {_error(item)}, --max-error is {gates.max_error:.3g}"
    return None


def complaints(fidelity: Fidelity, gates: Gates) -> Iterator[str]:
    """Yield a warning for every output that is poor, by the measures that the user set no gate for."""
    for name, item in fidelity.outputs.items():
        error, agreement = item.relative_error, item.agreement
        bad = []
        if gates.max_error is None and error is not None and not error <= ERROR:
            bad.append(f"has a relative error of {_error(item)}")
        elif gates.max_error is None and _distant(item):
            bad.append(f"is {item.standardized_error:.3g} times as far from the original's as the best constant")
        near = item.standardized_error is not None and item.standardized_error < CLOSE
        if gates.min_agreement is None and agreement is not None and agreement < AGREEMENT and not near:
            bad.append(f"agrees with the original for {agreement:.1%} of the samples")
        elif gates.min_agreement is None and not near and _misses(item):
            bad.append(
                f"agrees with the original for {agreement:.1%} of the samples, by chance it would for {item.chance:.1%}"
            )
        if bad:
            yield f"output {name!r} {' and '.join(bad)}"
        elif error is None and agreement is None:
            yield f"output {name!r} has another shape than the original's for some samples, so that its fidelity is not known: judge it with --validate"


def _lost(item: OutputFidelity, against: float | None) -> bool:
    """True if nearly all choices are the same, and the others are hardly made any more."""
    rare = item.chance is not None and item.chance > SAME
    return rare and item.recalled is not None and item.recalled <= NONE and (against is None or against >= CLOSE)


def _distant(item: OutputFidelity) -> bool:
    """True if an output whose choices say nothing follows the original's loosely: one that is far from zero all along has a small relative error anyway."""
    beyond = None if item.signs else item.beyond_chance
    return (item.standardized_error or 0.0) >= DISTANT and (beyond is None or beyond < RARE)


def _misses(item: OutputFidelity) -> bool:
    """True if choices are nearly all the same, and the others are missed beyond doubt."""
    beyond, chance = item.beyond_chance, item.chance
    if beyond is None or chance is None or chance <= OFTEN:
        return False
    return beyond + (item.agreement_spread or 0.0) / (1.0 - chance) < RARE


def _error(item: OutputFidelity) -> str:
    spread = item.relative_error_spread
    return f"{item.relative_error:.3g}" + ("" if spread is None else f" +- {spread:.2g}")
