"""`onnx-subprune profile`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from onnx_subprune._typing import Array
from onnx_subprune.calibration.data.constants import Constant, constant_values
from onnx_subprune.calibration.data.sources import Source
from onnx_subprune.cli import options
from onnx_subprune.cli.files import guarded, written
from onnx_subprune.cli.groups import OUTPUT, RESOURCES, STDOUT
from onnx_subprune.cli.options import constants_of, read_by, streamed_if_any
from onnx_subprune.cli.terminal import show
from onnx_subprune.evaluation.latency import raced_feeds
from onnx_subprune.graph.costs.tables import TABLES, key_of, made_here
from onnx_subprune.graph.network import Network, load, ports
from onnx_subprune.graph.observing import observe
from onnx_subprune.pruning.opening import opened
from onnx_subprune.pruning.resources import Resources
from onnx_subprune.runtime.blocks import convolution_block
from onnx_subprune.runtime.cache import keep
from onnx_subprune.runtime.files import json_text
from onnx_subprune.runtime.session import Runnable


def profile_command(  # noqa: PLR0913 - one argument an option
    model: Path,
    *,
    output: Annotated[Path, Parameter(name=("--output", "-o"), group=OUTPUT, help="Where the table goes.")],
    data: options.DataOption | None = None,
    constants: options.SetOption = None,
    carry: options.CarryOption = None,
    threads: Annotated[int, Parameter(group=RESOURCES, help="Threads of onnxruntime.")] = 1,
    providers: options.ProvidersOption = None,
    json_file: options.JsonOption = None,
    force: options.ForceOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Measure what each distinct layer of MODEL takes here, at a grid of widths, for `prune --latency F --table TABLE` on any machine.

    A machine without this package needs NumPy, onnxruntime and the folder runtime/profiler: `python -m profiler MODEL -o TABLE`.

    Parameters
    ----------
    model
        The ONNX model.

    """
    outputs, sources = {"--output": output, "--json": json_file}, [data, *read_by(constants)]
    with guarded(outputs, models=[model], sources=sources, force=force):
        network = load(model)
        feeds = _feeds(network, streamed_if_any(model, data, carry, constants), constants_of(constants))
        resources = Resources(threads=threads, providers=tuple(providers or ()))
        given = Runnable(network.given, network.folder)
        timed = resources.placement(given, feeds).timed
        found = made_here(given.on(timed), feeds, threads=threads, block=convolution_block())
        keep(TABLES, key_of(given.on(timed), feeds, threads, convolution_block()), found)
        about = _about(output, found)
        with written({output: lambda: json.dumps(found, indent=1), json_file: lambda: json_text(about)}):
            pass
    shapes = about["shapes"]
    show(
        f"{output}: {about['total_ms']:.4g} ms in all, {shapes} distinct layers at a grid of widths",
        quiet=quiet or json_file == STDOUT,
    )


def _feeds(network: Network, data: Source | None, values: Mapping[str, Constant]) -> Mapping[str, Array]:
    """What the model runs on: data, or made-up numbers."""
    if data is None:
        return observe(network, constants=constant_values(values, ports(network))).example.feeds
    return raced_feeds(opened(network, data, constants=values, rows=False).calibration)


def _about(output: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    """What a table says, in short."""
    return {
        "file": str(output),
        "machine": found["machine"],
        "threads": found["threads"],
        "total_ms": found["total"],
        "rest_ms": found["rest"],
        "shapes": len(found["shapes"]),
        "layers": {name: layer["ms"] for name, layer in found["layers"].items()},
    }
