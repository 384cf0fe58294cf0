"""`onnx-subprune inspect`."""

from pathlib import Path

from onnx_subprune.cli.application import app
from onnx_subprune.cli.files import guarded, json_text, written
from onnx_subprune.cli.options import ForceOption, JsonOption
from onnx_subprune.cli.terminal import show
from onnx_subprune.evaluation.report import inspection_table
from onnx_subprune.evaluation.report.inspection import inspection_dict
from onnx_subprune.graph.cost import costs
from onnx_subprune.graph.network import load
from onnx_subprune.graph.tracing.trace import trace


@app.command(name="inspect")
def inspect_command(model: Path, *, json_file: JsonOption = None, force: ForceOption = False) -> None:
    """Show what can be pruned in MODEL, and why the rest stays.

    Parameters
    ----------
    model
        The ONNX model.

    """
    with guarded({"--json": json_file}, models=[model], force=force):
        network = load(model)
        graph = trace(network)
        price = costs(network, graph)
        with written({json_file: lambda: json_text(inspection_dict(graph, price))}):
            pass
    show(inspection_table(graph, price))
