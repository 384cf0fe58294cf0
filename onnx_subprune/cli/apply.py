"""`onnx-subprune apply`."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from onnx_subprune.cli.application import app
from onnx_subprune.cli.files import guarded, json_text, report_text, written
from onnx_subprune.cli.groups import DATA, RESOURCES
from onnx_subprune.cli.options import (
    DataOption,
    ForceOption,
    JsonOption,
    QuietOption,
    ReportOption,
    SetOption,
    WideOption,
    constants_of,
    read_by,
    resources_of,
)
from onnx_subprune.cli.progress import Bar
from onnx_subprune.cli.terminal import printable, show
from onnx_subprune.evaluation.report import report_table
from onnx_subprune.pruning.apply import apply_recipe


@app.command(
    name="apply",
    help_epilogue="Example: onnx-subprune apply finetuned.onnx recipe.json small.onnx --data calibration.npz",
)
def apply_command(  # noqa: PLR0913 - one argument an option
    model: Path,
    recipe: Path,
    output: Path,
    *,
    data: DataOption | None = None,
    samples: Annotated[int | None, Parameter(group=DATA, help="Use the first N samples.")] = None,
    constants: SetOption = None,
    threads: Annotated[
        int | None, Parameter(group=RESOURCES, help="Threads of onnxruntime and of the linear algebra (all cores).")
    ] = None,
    json_file: JsonOption = None,
    html_file: ReportOption = None,
    force: ForceOption = False,
    quiet: QuietOption = False,
    wide: WideOption = False,
) -> None:
    """Cut the channels that RECIPE names from MODEL, another checkpoint of the same architecture, and write the result to OUTPUT.

    With --data weights are refitted and the result is judged; without they are sliced, for those who fine-tune afterwards.

    Parameters
    ----------
    model
        The ONNX model; it is not changed.
    recipe
        What `prune --recipe` wrote.
    output
        Where the smaller model goes; large weights go to OUTPUT.data.

    """
    outputs = {"OUTPUT": output, "--json": json_file, "--report": html_file}
    with guarded(outputs, models=[model], sources=[data, str(recipe), *read_by(constants)], force=force):
        with Bar(quiet=quiet) as watch:
            result = apply_recipe(
                model,
                recipe,
                data,
                resources=resources_of(samples, 32, threads, None),
                progress=watch,
                constants=constants_of(constants),
            )
        report = result.report
        texts = {
            json_file: lambda: json_text({**report.to_dict(), "command": sys.argv[1:]}),
            html_file: lambda: report_text(report),
        }
        with written(texts):
            result.save(output, force=force)
    for warning in report.warnings:
        print("warning:", printable(" ".join(warning.split())), file=sys.stderr)
    if not quiet:
        show(*report_table(report), wide=wide)
