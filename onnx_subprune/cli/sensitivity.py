"""`onnx-subprune sensitivity`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from onnx_subprune.cli.application import app
from onnx_subprune.cli.files import free_html, free_json, write_json, write_sensitivities
from onnx_subprune.cli.options import DataOption, JsonOption, ReportOption, ShiftsOption, resources_of
from onnx_subprune.cli.progress import Bar
from onnx_subprune.evaluation.report.table import sensitivity_table
from onnx_subprune.pruning.prune import sensitivity


@app.command(name="sensitivity")
def sensitivity_command(
    model: Path,
    *,
    data: DataOption,
    samples: int | None = None,
    threads: int | None = None,
    shifts: ShiftsOption = None,
    json_file: JsonOption = None,
    html_file: ReportOption = None,
    quiet: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show how far the output of MODEL moves when one group alone gets narrower.

    Parameters
    ----------
    model
        The ONNX model.
    samples
        Use the first N samples.
    threads
        Threads of onnxruntime and of the linear algebra (all cores).
    quiet
        Print no progress.

    """
    free_json(json_file)
    free_html(html_file)
    with Bar(quiet=quiet) as watch:
        found = sensitivity(
            model, data, resources=resources_of(samples, 32, threads, None, shifts=shifts), progress=watch
        )
    write_json(
        json_file,
        {item.name: dict(zip(map(str, item.output.widths), item.output.errors, strict=True)) for item in found},
    )
    write_sensitivities(html_file, found, str(model))
    Console().print(sensitivity_table(found))
