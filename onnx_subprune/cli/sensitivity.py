"""`onnx-subprune sensitivity`."""

from dataclasses import replace
from pathlib import Path

from onnx_subprune.cli import options
from onnx_subprune.cli.files import guarded, sensitivities_text, written
from onnx_subprune.cli.groups import STDOUT
from onnx_subprune.cli.options import constants_of, read_by, resources_of, streamed
from onnx_subprune.cli.progress import Bar
from onnx_subprune.cli.terminal import show
from onnx_subprune.evaluation.report.table import sensitivity_table
from onnx_subprune.pruning.sensitivity import sensitivity
from onnx_subprune.runtime.files import json_text


def sensitivity_command(  # noqa: PLR0913 - one argument an option
    model: Path,
    *,
    data: options.DataOption,
    samples: options.FirstOption = None,
    threads: options.ThreadsOption = None,
    providers: options.ProvidersOption = None,
    shifts: options.ShiftsOption = None,
    mask: options.MaskOption = None,
    constants: options.SetOption = None,
    carry: options.CarryOption = None,
    json_file: options.JsonOption = None,
    html_file: options.ReportOption = None,
    force: options.ForceOption = False,
    quiet: options.QuietOption = False,
    wide: options.WideOption = False,
) -> None:
    """Show how far the output of MODEL moves when one group alone gets narrower.

    Parameters
    ----------
    model
        The ONNX model.

    """
    resources = replace(resources_of(samples, 32, threads, None, providers=providers), shifts=shifts, mask=mask)
    outputs, sources = {"--json": json_file, "--report": html_file}, [data, *read_by(constants)]
    with guarded(outputs, models=[model], sources=sources, force=force):
        with Bar(quiet=quiet) as watch:
            given = streamed(model, data, carry, constants)
            found = sensitivity(model, given, resources=resources, progress=watch, constants=constants_of(constants))
        errors = {item.name: dict(zip(map(str, item.output.widths), item.output.errors, strict=True)) for item in found}
        texts = {json_file: lambda: json_text(errors), html_file: lambda: sensitivities_text(found, str(model))}
        with written(texts):
            pass
    show(*sensitivity_table(found), quiet=quiet or json_file == STDOUT, wide=wide)
