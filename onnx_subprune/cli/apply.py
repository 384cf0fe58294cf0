"""`onnx-subprune apply`."""

from dataclasses import replace
from pathlib import Path

from onnx_subprune.cli import options
from onnx_subprune.cli.files import guarded, placed, save
from onnx_subprune.cli.groups import STDOUT
from onnx_subprune.cli.options import constants_of, read_by, resources_of, streamed_if_any
from onnx_subprune.cli.progress import Bar
from onnx_subprune.cli.terminal import tell
from onnx_subprune.pruning.apply import apply_recipe


def apply_command(  # noqa: PLR0913 - one argument an option
    model: Path,
    recipe: Path,
    output: Path,
    *,
    data: options.DataOption | None = None,
    samples: options.FirstOption = None,
    mask: options.MaskOption = None,
    constants: options.SetOption = None,
    carry: options.CarryOption = None,
    batch_size: options.BatchSizeOption = 32,
    threads: options.ThreadsOption = None,
    json_file: options.JsonOption = None,
    html_file: options.ReportOption = None,
    force: options.ForceOption = False,
    quiet: options.QuietOption = False,
    wide: options.WideOption = False,
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
                streamed_if_any(model, data, carry, constants, samples=samples, mask=mask),
                resources=replace(resources_of(samples, batch_size, threads, None), mask=mask),
                progress=watch,
                constants=constants_of(constants),
            )
        result = placed(result, output)
        save(result, output, force=force, json=json_file, html=html_file)
    tell(result.report, quiet=quiet or json_file == STDOUT, wide=wide)
