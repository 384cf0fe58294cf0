"""`onnx-subprune compare`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from onnx_subprune.calibration.data.carried import carries_named
from onnx_subprune.cli import options
from onnx_subprune.cli.files import guarded, written
from onnx_subprune.cli.groups import DATA, RESOURCES, STDOUT
from onnx_subprune.cli.options import constants_of, read_by
from onnx_subprune.cli.terminal import show, warn
from onnx_subprune.pruning.compare import compare as compare_models
from onnx_subprune.runtime.files import json_text


def compare_command(  # noqa: PLR0913 - one argument an option
    original: Path,
    pruned: Path,
    *,
    data: options.DataOption,
    labels: Annotated[
        str | None, Parameter(group=DATA, help="y.npy or x.npz:key, one integer a sample: also compare accuracies.")
    ] = None,
    threads: Annotated[int | None, Parameter(group=RESOURCES, help="Threads of onnxruntime (all cores).")] = None,
    providers: options.ProvidersOption = None,
    constants: options.SetOption = None,
    carry: options.CarryOption = None,
    json_file: options.JsonOption = None,
    html_file: options.ReportOption = None,
    force: options.ForceOption = False,
    quiet: options.QuietOption = False,
    wide: options.WideOption = False,
) -> None:
    """Compare PRUNED with ORIGINAL: fidelity of the outputs, size, latency measured here.

    Parameters
    ----------
    original
        The model before pruning.
    pruned
        The model after pruning.

    """
    sources = [data, labels, *read_by(constants)]
    with guarded({"--json": json_file, "--report": html_file}, models=[original, pruned], sources=sources, force=force):
        found = compare_models(
            original,
            pruned,
            data,
            labels=labels,
            threads=threads,
            providers=tuple(providers or ()),
            constants=constants_of(constants),
            carry=carries_named(carry or []),
        )
        title = f"{pruned} beside {original}"
        texts = {
            json_file: lambda: json_text(found.to_dict()),
            html_file: lambda: found.page(title),
        }
        with written(texts):
            pass
    warn(found.warnings)
    show(*found.parts(), quiet=quiet or json_file == STDOUT, wide=wide)
