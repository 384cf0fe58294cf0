"""`onnx-subprune profile`."""

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from onnx_subprune.calibration.data.reading import open_data
from onnx_subprune.cli.application import app
from onnx_subprune.cli.files import guarded, written
from onnx_subprune.cli.options import DataOption
from onnx_subprune.evaluation.latency import raced_feeds
from onnx_subprune.graph.costs.tables import made_here
from onnx_subprune.graph.network import load, ports
from onnx_subprune.graph.observation import observe
from onnx_subprune.runtime.blocks import convolution_block


@app.command(name="profile", help_epilogue="Example: onnx-subprune profile model.onnx -o table.json")
def profile_command(
    model: Path,
    *,
    output: Annotated[Path, Parameter(name=("--output", "-o"), help="Where the table goes.")],
    data: DataOption | None = None,
    threads: Annotated[int, Parameter(help="Threads of onnxruntime.")] = 1,
    force: Annotated[bool, Parameter(negative="", help="Overwrite the table.")] = False,
) -> None:
    """Measure what each distinct layer of MODEL takes here, at a grid of widths, for `prune --latency F --table TABLE` on any machine.

    A machine without this package needs NumPy, onnxruntime and the folder runtime/profiler: `python -m profiler MODEL -o TABLE`.

    Parameters
    ----------
    model
        The ONNX model.

    """
    with guarded({"--output": output}, models=[model], sources=(data,), force=force):
        network = load(model)
        feeds = raced_feeds(open_data(data, ports(network))[0]) if data else observe(network).example.feeds
        found = made_here(network.given, network.folder, feeds, threads=threads, block=convolution_block())
        with written({output: lambda: json.dumps(found, indent=1)}):
            pass
