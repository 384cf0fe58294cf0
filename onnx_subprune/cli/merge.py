"""`onnx-subprune merge`."""

from pathlib import Path

from onnx_subprune.calibration.files import merge
from onnx_subprune.cli.files import guarded, moments_dict, moments_line, written
from onnx_subprune.cli.groups import STDOUT
from onnx_subprune.cli.options import ForceOption, JsonOption, QuietOption, StatisticsOutput
from onnx_subprune.cli.terminal import show
from onnx_subprune.runtime.files import json_text


def merge_command(
    *files: Path,
    output: StatisticsOutput,
    json_file: JsonOption = None,
    force: ForceOption = False,
    quiet: QuietOption = False,
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
        about = moments_dict(output)
        with written({json_file: lambda: json_text(about)}):
            pass
    show(moments_line(about), quiet=quiet or json_file == STDOUT)
