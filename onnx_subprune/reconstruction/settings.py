"""How layers are reconstructed, and what comes of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from onnx_subprune._typing import Array
from onnx_subprune.graph.channels import Use
from onnx_subprune.selection import Choice


@dataclass(frozen=True, slots=True)
class Asymmetric:
    """Inputs of the pruned model, targets of the original: later layers repair the errors of earlier ones."""


@dataclass(frozen=True, slots=True)
class Sequential:
    """Inputs of the pruned model; targets are what the old weights make of those."""


@dataclass(frozen=True, slots=True)
class Layerwise:
    """Inputs and targets of the original model: every layer by itself."""


Formulation = Asymmetric | Sequential | Layerwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Refit:
    """How layers are refitted.

    residual: aim at the sum that the output runs into. everywhere: refit every contraction behind a change, not only those that lost
    inputs. rounds: how often the target is renewed with what the activation behind cannot tell apart. joint: how many steps a layer takes at most
    together with the only reader of its output; three times as many where it is dense.
    """

    residual: bool = True
    everywhere: bool = True
    rounds: int = 1
    joint: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Refitted:
    """What became of one contraction."""

    node: str
    fitted_error: float
    heldout_error: float
    plain_error: float
    refitted: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reconstruction:
    """Supports and error of each pruned group, new weights, and how every touched contraction did."""

    choices: Mapping[str, Choice]
    weights: Mapping[Use, Array]
    refits: Mapping[Use, Refitted]
    seconds: Mapping[str, float]
