"""`onnx-subprune merge`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from onnx_subprune.calibration.files import merge
from onnx_subprune.cli.application import app
from onnx_subprune.cli.files import guarded, moments_text, written
from onnx_subprune.cli.options import JsonOption, StatisticsOutput


@app.command(name="merge", help_epilogue="Example: onnx-subprune merge 1.npz 2.npz 3.npz 4.npz -o all.npz")
def merge_command(
    *files: Path,
    output: StatisticsOutput,
    json_file: JsonOption = None,
    force: Annotated[bool, Parameter(negative="", help="Overwrite the merged FILE.")] = False,
) -> None:
    """Merge the moments of all shards into one file for `prune --statistics`.

    The result does not depend on the order of the files, nor on how many shards there were.

    Parameters
    ----------
    files
        What `collect` wrote: every shard once.

    """
    with guarded({"--output": output, "--json": json_file}, models=(), sources=map(str, files), force=force):
        merge(files, output, force=force)
        with written({json_file: lambda: moments_text(output)}):
            pass
