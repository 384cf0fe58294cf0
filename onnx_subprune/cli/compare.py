"""`onnx-subprune compare`."""

from pathlib import Path

from onnx_subprune.cli.application import app
from onnx_subprune.cli.files import guarded, json_text, written
from onnx_subprune.cli.options import DataOption, ForceOption, JsonOption, SetOption, constants_of, read_by
from onnx_subprune.cli.terminal import show
from onnx_subprune.evaluation.report import fidelity_table
from onnx_subprune.evaluation.report.table import comparison_table
from onnx_subprune.pruning.compare import compare as compare_models


@app.command(name="compare")
def compare_command(
    original: Path,
    pruned: Path,
    *,
    data: DataOption,
    labels: str | None = None,
    threads: int | None = None,
    constants: SetOption = None,
    json_file: JsonOption = None,
    force: ForceOption = False,
) -> None:
    """Compare PRUNED with ORIGINAL: fidelity of the outputs, size, latency measured here.

    Parameters
    ----------
    original
        The model before pruning.
    pruned
        The model after pruning.
    labels
        y.npy or x.npz:key, one integer a sample: also compare accuracies.
    threads
        Threads of onnxruntime (all cores).

    """
    sources = [data, labels, *read_by(constants)]
    with guarded({"--json": json_file}, models=[original, pruned], sources=sources, force=force):
        found = compare_models(
            original, pruned, data, labels=labels, threads=threads, constants=constants_of(constants)
        )
        with written({json_file: lambda: json_text(found.to_dict())}):
            pass
    show(comparison_table(found), fidelity_table(found.fidelity))
