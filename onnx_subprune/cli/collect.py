"""`onnx-subprune collect`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from onnx_subprune.cli import options
from onnx_subprune.cli.files import guarded, moments_dict, moments_line, written
from onnx_subprune.cli.groups import DATA, RESOURCES, STDOUT
from onnx_subprune.cli.options import StatisticsOutput, constants_of, read_by, resources_of, streamed
from onnx_subprune.cli.progress import Bar
from onnx_subprune.cli.terminal import show
from onnx_subprune.errors import OptionError
from onnx_subprune.pruning.collect import collect
from onnx_subprune.runtime.files import json_text


def collect_command(  # noqa: PLR0913 - one argument an option
    model: Path,
    *,
    data: options.DataOption,
    output: StatisticsOutput,
    shard: Annotated[
        str,
        Parameter(
            group=DATA,
            help="I/N: take the I-th of N equal runs of the samples, I from 1 to N (or from 0: 0/N is N/N). Every shard is given the same DATA.",
        ),
    ] = "1/1",
    samples: Annotated[
        int | None, Parameter(group=DATA, help="Use the first N samples of DATA, the same for all shards.")
    ] = None,
    batch_size: options.BatchSizeOption = 32,
    threads: Annotated[int | None, Parameter(group=RESOURCES, help="Threads of onnxruntime (all cores).")] = None,
    providers: options.ProvidersOption = None,
    memory: Annotated[
        str | None,
        Parameter(
            group=RESOURCES,
            help="For activations and sums, for example 4G (a quarter of the machine). Where the sums of all layers do not fit, the data are "
            "gone through several times; give all shards the same.",
        ),
    ] = None,
    constants: options.SetOption = None,
    carry: options.CarryOption = None,
    json_file: options.JsonOption = None,
    force: options.ForceOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Collect the moments of MODEL on one shard of the data, to prune from later, elsewhere.

    Collect all shards, on any machines, `merge` their files, then `prune --statistics`.

    Parameters
    ----------
    model
        The ONNX model that will be pruned.

    """
    resources = resources_of(samples, batch_size, threads, memory, providers=providers)
    with (
        guarded(
            {"--output": output, "--json": json_file}, models=[model], sources=[data, *read_by(constants)], force=force
        ),
        Bar(quiet=quiet) as watch,
    ):
        collect(
            model,
            streamed(model, data, carry, constants),
            output,
            shard=_shard(shard),
            resources=resources,
            progress=watch,
            force=force,
            constants=constants_of(constants),
        )
        about = moments_dict(output)
        with written({json_file: lambda: json_text(about)}):
            pass
    show(moments_line(about), quiet=quiet or json_file == STDOUT)


def _shard(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal()):
        raise OptionError(f"--shard {text!r}: write it as I/N, for example 1/4")
    return int(number), int(count)
