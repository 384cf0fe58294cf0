"""Options that several commands share, and what their words mean."""

from math import inf
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from onnx_subprune.calibration.data.carried import carried, carries_named
from onnx_subprune.calibration.data.constants import Constant, constants_named
from onnx_subprune.calibration.data.sources import Source
from onnx_subprune.cli.groups import DATA, OUTPUT, QUALITY, RESOURCES, count_or_share, json_path
from onnx_subprune.errors import OptionError
from onnx_subprune.pruning.resources import Resources

DataOption = Annotated[
    str,
    Parameter(
        name="--data",
        group=DATA,
        help="Inputs, preprocessed as the model wants them: x.npz (one array an input), x.npy, a folder of those, a folder of "
        "test_data_set_*/input_*.pb, or script.py[:function] yielding dictionaries of arrays, or tuples in the order of the inputs. Files have samples on "
        "the first axis; what is yielded, and test sets, may be runs of a model whose inputs have none.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    Parameter(
        name="--set",
        group=DATA,
        negative="",
        help="NAME=VALUE or NAME=FILE.npy: what the input NAME is fed, the same for all samples; repeatable. VALUE is a number, true or false, "
        "or a list like [1,2].",
    ),
]
CarryOption = Annotated[
    list[str] | None,
    Parameter(
        name="--carry",
        group=DATA,
        negative="",
        help="STATE_IN=STATE_OUT: the input STATE_IN of a streaming model is fed what STATE_OUT was in the run before, zeros first; DATA are the other "
        "inputs, in order; repeatable.",
    ),
]
JsonOption = Annotated[
    Path | None,
    Parameter(
        name="--json",
        group=OUTPUT,
        converter=json_path,
        allow_leading_hyphen=True,
        help="Write the result to this JSON file too; - for stdout, in place of the tables.",
    ),
]
StatisticsOutput = Annotated[
    Path,
    Parameter(
        name=["--output", "-o"],
        group=OUTPUT,
        help="The file of moments to write (.npz); it appears whole or not at all.",
    ),
]
ReportOption = Annotated[
    Path | None,
    Parameter(name="--report", group=OUTPUT, help="Write an HTML report to this file too; needs the extra `report`."),
]
RecipeOption = Annotated[
    Path | None,
    Parameter(
        name="--recipe",
        group=OUTPUT,
        help="Write which channels stay to this JSON file too, for `apply` on other checkpoints of the same architecture.",
    ),
]
ForceOption = Annotated[
    bool,
    Parameter(
        name="--force",
        group=OUTPUT,
        negative="",
        help="Overwrite files that are there; never one that is read here, nor links and devices.",
    ),
]
ShiftsOption = Annotated[
    bool | None,
    Parameter(
        name="--shifts",
        group=QUALITY,
        negative="--no-shifts",
        help="Add four copies of all images, each moved by a pixel (by default only for small networks, where the weights are many for the samples; "
        "larger ones may have a mirrored copy of each). --no-shifts: no copies.",
    ),
]
MaskOption = Annotated[
    str | None,
    Parameter(
        name="--mask",
        group=DATA,
        help="The input (samples, positions) whose zeros hide positions, as padding: those count in no fit (by default the one that hides them from "
        "the attention).",
    ),
]
HoldoutOption = Annotated[
    float | None,
    Parameter(
        name="--holdout",
        group=DATA,
        converter=count_or_share,
        help="Hold N samples, or a fraction of them, out of all fitting and choosing, and judge the result on these (the samples that --samples "
        "leaves, or else an eighth: at least 16 where there are 64, at most 512). With 0 it is judged on what it was fitted to.",
    ),
]
BatchSizeOption = Annotated[
    int, Parameter(group=RESOURCES, help="Run at most N samples at once. The result does not depend on it.")
]
FirstOption = Annotated[int | None, Parameter(name="--samples", group=DATA, help="Use the first N samples.")]
ThreadsOption = Annotated[
    int | None, Parameter(group=RESOURCES, help="Threads of onnxruntime and of the linear algebra (all cores).")
]
ProvidersOption = Annotated[
    list[str] | None,
    Parameter(
        name="--providers",
        group=RESOURCES,
        negative="",
        help="Run the models on this execution provider of onnxruntime where it helps: cuda, tensorrt, openvino, coreml, xnnpack ..., with options as "
        "openvino:device_type=GPU; repeatable, in order of preference. What decides stays on the processor where the provider rounds otherwise.",
    ),
]
QuietOption = Annotated[
    bool, Parameter(name="--quiet", group=OUTPUT, negative="", help="Print nothing but errors and warnings.")
]
WideOption = Annotated[
    bool,
    Parameter(
        name="--wide",
        group=OUTPUT,
        negative="",
        help="Do not shorten names to fit the terminal (nothing is shortened in a pipe or a file).",
    ),
]


def constants_of(texts: list[str] | None) -> dict[str, Constant]:
    """Return what --set says."""
    return constants_named(texts or ())


def streamed(model: Path, data: str, carry: list[str] | None, constants: list[str] | None) -> Source:
    """Return the data, with the states that --carry names as the model meets them."""
    return carried(model, data, carries_named(carry), constants_of(constants)) if carry else data


def streamed_if_any(
    model: Path, data: str | None, carry: list[str] | None, constants: list[str] | None, **others: object
) -> Source | None:
    """Return the same where there are data; OptionError for options that say something of data where there are none. others: by name."""
    if data is not None:
        return streamed(model, data, carry, constants)
    alone = [name for name, value in {"carry": carry, **others}.items() if value is not None]
    if alone:
        raise OptionError(f"--{alone[0]} goes with --data")
    return None


def read_by(texts: list[str] | None) -> list[str]:
    """Return the files that --set reads."""
    return [text.partition("=")[2] for text in texts or () if text.endswith(".npy")]


def resources_of(
    samples: int | None,
    batch_size: int,
    threads: int | None,
    memory: str | None,
    positions: int | None = None,
    trials: int | None = None,
    *,
    providers: list[str] | None = None,
) -> Resources:
    """Return what may be used; OptionError if it makes no sense."""
    for name, value in (
        ("--samples", samples),
        ("--batch-size", batch_size),
        ("--positions", positions),
    ):
        if value is not None and value < 1:
            raise OptionError(f"{name} {value}: at least 1")
    if trials is not None and trials < 0:
        raise OptionError(f"--trials {trials}: 0 for none, or more")
    return Resources(
        samples=samples,
        batch_size=batch_size,
        threads=threads,
        memory=bytes_of(memory),
        positions=positions,
        trials=trials,
        providers=tuple(providers or ()),
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
    if not 0 < size < inf:
        raise OptionError(f"--memory {text!r}: must be more than nothing, and a number")
    return int(size)
