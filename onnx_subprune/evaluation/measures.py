"""Measures of how faithful a pruned model is to the original."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from onnx_subprune.evaluation.spread import with_spread

OFTEN = 0.75
"""Where choices agree by chance for more than this share of the samples, that is said beside how often they do: nearly all are of one class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFidelity:
    """How close an output y' of the pruned model is to y of the original.

    relative_error: ||y' - y||_F / ||y||_F. cosine: of y and y'. standardized_error: ||y' - y||_F over what the best constant makes, the mean of y over
    the samples: at 1 the output is no better than one; None where y does not vary. correlation: of y and y' about their means over the samples.
    agreement: share of samples with equal arg-max, or of positions, where there are probabilities at each (along the last axis, or that of
    channels); of outputs whose numbers are all from 0 to 1, but no distributions, as behind a sigmoid, the share of numbers on the same side of 0.5; of
    single numbers a sample, or a position where nearly all have one sign, as scores in front of a sigmoid, the share with the same sign (`signs`). None
    of others, and of embeddings, whose rows all have the length 1, or whose largest number is not far in front of the next. chance: what it would be if y
    and y' were independent. recalled: of two choices, the share of the original's rarer ones that y' makes as well; None where there are few.
    Of integers, truth values and strings there are only agreement, the share of equal elements, and chance. There is nothing of an output whose shape depends
    on values, where the models make different ones. The spreads of relative_error and agreement say how much these differ on other samples, as many:
    see `evaluation.spread`; None where that is not known, and on samples that the model was fitted to.
    """

    relative_error: float | None
    cosine: float | None
    agreement: float | None
    chance: float | None = None
    standardized_error: float | None = None
    correlation: float | None = None
    relative_error_spread: float | None = None
    agreement_spread: float | None = None
    signs: bool = False
    recalled: float | None = None

    @property
    def error_words(self) -> str:
        """The relative error with its spread; nothing where there is none."""
        return "" if self.relative_error is None else with_spread(self.relative_error, self.relative_error_spread)

    @property
    def agreement_words(self) -> str:
        """The agreement with its spread, in per cent; nothing where there is none."""
        if self.agreement is None:
            return ""
        spread = None if self.agreement_spread is None else 100 * self.agreement_spread
        chance = self.chance if self.chance is not None and self.chance > OFTEN else None
        return f"{with_spread(100 * self.agreement, spread, 1)} %{' of signs' if self.signs else ''}" + (
            "" if chance is None else f" ({100 * chance:.1f} % by chance)"
        )

    @property
    def beyond_chance(self) -> float | None:
        """How far the agreement is on the way from chance to 1 (Cohen's kappa); None where nothing is chosen, or chance alone agrees."""
        if self.agreement is None or self.chance is None or self.chance >= 1.0:
            return None
        return (self.agreement - self.chance) / (1.0 - self.chance)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """Of all outputs; accuracy of both models where labels were given.

    held_out: True if the pruned model was not fitted to the samples, nor chosen by them; None where that is not known.
    """

    samples: int
    outputs: Mapping[str, OutputFidelity]
    accuracy: tuple[float, float] | None = None
    held_out: bool | None = None

    @property
    def where(self) -> str:
        """The samples, in words."""
        if self.held_out is None:
            return f"{self.samples} samples"
        return f"{self.samples} held-out samples" if self.held_out else f"{self.samples} fitted samples"

    def on(self, *, held_out: bool) -> "Fidelity":
        """Return the same of samples that are held out, or of fitted ones: those say nothing about others, so there is no spread."""
        if held_out:
            return replace(self, held_out=True)
        known = {
            name: replace(item, relative_error_spread=None, agreement_spread=None)
            for name, item in self.outputs.items()
        }
        return replace(self, held_out=False, outputs=known)


NOTHING = OutputFidelity(relative_error=None, cosine=None, agreement=None)
