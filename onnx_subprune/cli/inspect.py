"""`onnx-subprune inspect`."""

from collections.abc import Mapping
from pathlib import Path

from onnx_subprune.calibration.data.constants import Constant, constant_values
from onnx_subprune.calibration.data.sources import Source
from onnx_subprune.cli import options
from onnx_subprune.cli.files import guarded, parts_text, written
from onnx_subprune.cli.groups import STDOUT
from onnx_subprune.cli.options import constants_of, read_by, streamed_if_any
from onnx_subprune.cli.terminal import show
from onnx_subprune.evaluation.report import inspection_table
from onnx_subprune.evaluation.report.inspection import inspection_dict, made_up_note, rows_a_column
from onnx_subprune.evaluation.report.map import blocks
from onnx_subprune.graph.channels import ChannelGraph
from onnx_subprune.graph.costs.costs import costs
from onnx_subprune.graph.costs.layers import layers
from onnx_subprune.graph.network import Network, load, ports
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.opening import opened
from onnx_subprune.runtime.files import json_text


def inspect_command(  # noqa: PLR0913 - one argument an option
    model: Path,
    *,
    data: options.DataOption | None = None,
    constants: options.SetOption = None,
    carry: options.CarryOption = None,
    json_file: options.JsonOption = None,
    html_file: options.ReportOption = None,
    force: options.ForceOption = False,
    quiet: options.QuietOption = False,
    wide: options.WideOption = False,
) -> None:
    """Show what can be pruned in MODEL, and why the rest stays; with --data, at its sizes, and how many rows there are to fit a column.

    Parameters
    ----------
    model
        The ONNX model.

    """
    outputs = {"--json": json_file, "--report": html_file}
    with guarded(outputs, models=[model], sources=[data, *read_by(constants)], force=force):
        network = load(model)
        graph, samples = _traced(network, streamed_if_any(model, data, carry, constants), constants_of(constants))
        price = costs(network, graph)
        rows = rows_a_column(network, graph, samples) if samples else {}
        note = made_up_note(graph)
        parts = (*inspection_table(network, graph, price, rows), *([] if note is None else [f"note: {note}"]))
        texts = {
            json_file: lambda: json_text(inspection_dict(network, graph, price, rows)),
            html_file: lambda: parts_text(
                f"What can be pruned in {model}", parts, blocks(graph, layers(network, graph))
            ),
        }
        with written(texts):
            pass
    show(*parts, quiet=quiet or json_file == STDOUT, wide=wide)


def _traced(network: Network, data: Source | None, values: Mapping[str, Constant]) -> tuple[ChannelGraph, int]:
    """The graph, and how many samples there are; 0 without data."""
    if data is not None:
        found = opened(network, data, constants=values, rows=False)
        return found.graph, found.calibration.samples
    return trace(network, constants=constant_values(values, ports(network))), 0
