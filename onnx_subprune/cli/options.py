"""Options that several commands share, and what their words mean."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from onnx_subprune.errors import OptionError
from onnx_subprune.pipeline import Resources

DataOption = Annotated[
    str,
    Parameter(
        name="--data",
        help="Inputs, preprocessed as the model wants them: x.npz (one array an input), x.npy, a folder of those, a folder of "
        "test_data_set_*/input_*.pb, or script.py[:function] yielding dictionaries of arrays.",
    ),
]
JsonOption = Annotated[Path | None, Parameter(name="--json", help="Write the result to this JSON file too.")]
StatisticsOutput = Annotated[
    Path,
    Parameter(name=["--output", "-o"], help="The file of moments to write (.npz); it appears whole or not at all."),
]
ReportOption = Annotated[
    Path | None,
    Parameter(name="--report", help="Write an HTML report to this file too; needs the extra `report`."),
]
Names = Annotated[list[str] | None, Parameter(negative="")]


def resources_of(
    samples: int | None, batch_size: int, threads: int | None, memory: str | None, positions: int | None = None
) -> Resources:
    """Return what may be used; OptionError if it makes no sense."""
    for name, value in (
        ("--samples", samples),
        ("--batch-size", batch_size),
        ("--threads", threads),
        ("--positions", positions),
    ):
        if value is not None and value < 1:
            raise OptionError(f"{name} {value}: at least 1")
    return Resources(
        samples=samples, batch_size=batch_size, threads=threads, memory=bytes_of(memory), positions=positions
    )


def bytes_of(text: str | None) -> int | None:
    """Return a size like 500M or 4G in bytes."""
    if text is None:
        return None
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    body = text.upper().removesuffix("B")
    try:
        size = float(body[:-1]) * units[body[-1]] if body[-1:] in units else float(body)
    except ValueError as error:
        raise OptionError(f"--memory {text!r} is not a size: write it like 500M or 4G") from error
    if size <= 0:
        raise OptionError(f"--memory {text!r}: must be more than nothing")
    return int(size)
