"""What the user asks for."""

import os
from dataclasses import dataclass

from onnx_subprune.errors import BudgetError, typed_fields


def _check(name: str, fraction: float) -> None:
    if not 0.0 < fraction < 1.0:
        raise BudgetError(
            f"{name} {fraction} is not between 0 and 1: give the fraction of the model to keep, for example 0.5"
        )


@typed_fields
@dataclass(frozen=True, slots=True)
class Macs:
    """Keep at most this fraction of the multiply-accumulates."""

    fraction: float

    def __post_init__(self) -> None:
        _check("macs", self.fraction)


@typed_fields
@dataclass(frozen=True, slots=True)
class Params:
    """Keep at most this fraction of the parameters."""

    fraction: float

    def __post_init__(self) -> None:
        _check("params", self.fraction)


@typed_fields
@dataclass(frozen=True, slots=True)
class Channels:
    """Keep this fraction of every group, without allocation."""

    fraction: float

    def __post_init__(self) -> None:
        _check("channels", self.fraction)


@typed_fields
@dataclass(frozen=True, slots=True)
class Latency:
    """Keep at most this fraction of the latency, measured here.

    table: a file of `onnx-subprune profile`, made on another machine, whose predictions count instead. measure: a command that prints the
    milliseconds of a model, whose path takes the place of {model} in it.
    """

    fraction: float
    table: str | os.PathLike[str] | None = None
    measure: str | None = None

    def __post_init__(self) -> None:
        _check("latency", self.fraction)
