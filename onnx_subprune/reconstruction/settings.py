"""How layers are reconstructed, and what comes of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from onnx_subprune._typing import Array
from onnx_subprune.errors import at_least, typed_fields
from onnx_subprune.graph.channels import Use
from onnx_subprune.selection import Choice


class Formulation:
    """What layers are fitted to. Two answers tell the kinds apart, and nothing else asks which one it is.

    follows: the inputs are those of the pruned model, which has every new weight at once; else those of the original.
    repairs: the targets are tensors of the original, which runs alongside, on drawn positions; else what the old weights make of the inputs.
    """

    __slots__ = ()
    follows: ClassVar[bool] = True
    repairs: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Asymmetric(Formulation):
    """Inputs of the pruned model, targets of the original: later layers repair the errors of earlier ones."""

    repairs: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Sequential(Formulation):
    """Inputs of the pruned model; targets are what the old weights make of those."""


@dataclass(frozen=True, slots=True)
class Layerwise(Formulation):
    """Inputs and targets of the original model: every layer by itself."""

    follows: ClassVar[bool] = False


@typed_fields
@dataclass(frozen=True, slots=True, kw_only=True)
class Refit:
    """How layers are refitted.

    residual: aim at the sum that the output runs into. everywhere: refit every contraction behind a change, not only those that lost
    inputs. rounds: how often the target is renewed with what the activation behind cannot tell apart. joint: how many steps a layer takes at most
    together with the only reader of its output; three times as many where it is dense. through_time: how many gradients of what its states are wrong
    by, over whole sequences, the weights of a recurrent layer follow at most. Raises OptionError for numbers below 0.
    """

    residual: bool = True
    everywhere: bool = True
    rounds: int = 1
    joint: int = 4
    through_time: int = 12

    def __post_init__(self) -> None:
        at_least(0, rounds=self.rounds, joint=self.joint, through_time=self.through_time)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refitted:
    """What became of one contraction, fitted on `rows` rows for each of its `columns` columns (of one convolution group).

    heldout_error: of fits on one half of the samples, on the other.
    domain: the operator behind it that is no finite number with other weights than the old ones, if there is one.
    """

    node: str
    fitted_error: float
    heldout_error: float
    plain_error: float
    refitted: bool
    rows: int = 0
    columns: int = 0
    domain: str | None = None

    @property
    def expected_error(self) -> float:
        """The error on samples that were not seen, about.

        Least squares on n rows err by s + a / n on others and by s - a / n on these; on the halves, n / 2 rows, by s + 2 a / n.
        """
        return self.heldout_error - self._excess

    @property
    def expected_with_twice(self) -> float:
        """The same, if there were twice as many samples."""
        return self.heldout_error - 1.5 * self._excess

    @property
    def _excess(self) -> float:
        """What a fit on all samples errs by for want of more, a / n."""
        return max(0.0, self.heldout_error - self.fitted_error) / 3.0 if self.refitted else 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reconstruction:
    """Supports and error of each pruned group, new weights, and how every touched contraction did."""

    choices: Mapping[str, Choice]
    weights: Mapping[Use, Array]
    refits: Mapping[Use, Refitted]
    seconds: Mapping[str, float]
