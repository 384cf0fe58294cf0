"""`onnx-subprune prune`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from onnx_subprune.allocation import Allocator, MarginalCost, Threshold, Uniform
from onnx_subprune.cli.application import app
from onnx_subprune.cli.budget import budget_of, metric_of
from onnx_subprune.cli.files import free_html, free_json, write_json, write_report
from onnx_subprune.cli.options import DataOption, JsonOption, Names, ReportOption, resources_of
from onnx_subprune.cli.progress import Bar
from onnx_subprune.output import free_path
from onnx_subprune.pipeline import prune
from onnx_subprune.report import report_table
from onnx_subprune.selection import selectors
from onnx_subprune.task import Asymmetric, Formulation, Layerwise, Refit, Sequential

FORMULATIONS: dict[str, Formulation] = {
    "asymmetric": Asymmetric(),
    "sequential": Sequential(),
    "layerwise": Layerwise(),
}
ALLOCATIONS: dict[str, Allocator] = {"sensitivity": MarginalCost(), "uniform": Uniform(), "threshold": Threshold()}


@app.command(name="prune")
def prune_command(  # noqa: PLR0913 - one argument an option
    model: Path,
    output: Path,
    *,
    data: DataOption,
    macs: Annotated[
        float | None,
        Parameter(help="Keep at most this fraction of the multiply-accumulates (0.5 if no budget is given)."),
    ] = None,
    params: Annotated[float | None, Parameter(help="Keep at most this fraction of the parameters.")] = None,
    channels: Annotated[float | None, Parameter(help="Keep this fraction of every group, without allocation.")] = None,
    latency: Annotated[
        float | None, Parameter(help="Take at most this fraction of the original's latency, measured here.")
    ] = None,
    max_drop: Annotated[
        float | None,
        Parameter(help="Make the smallest model whose metric drops by at most this: 0.01 is one point of accuracy."),
    ] = None,
    labels: Annotated[
        str | None,
        Parameter(help="y.npy or x.npz:key, one integer a sample of DATA: measure the accuracy before and after."),
    ] = None,
    validate: Annotated[
        str | None,
        Parameter(help="script.py:function, which takes the path of a model and returns a metric; higher is better."),
    ] = None,
    formulation: Annotated[
        Literal["asymmetric", "sequential", "layerwise"],
        Parameter(
            help="Where inputs and targets of the refit come from: asymmetric repairs the errors of earlier layers."
        ),
    ] = "asymmetric",
    selector: Annotated[
        Literal[
            "refined",
            "forward",
            "backward",
            "random",
            "weight-norm",
            "activation-norm",
            "wanda",
            "interpolative",
            "layer-sampling",
        ],
        Parameter(help="How the channels of a group are chosen."),
    ] = "forward",
    allocation: Annotated[
        Literal["sensitivity", "uniform", "threshold"],
        Parameter(
            help="How the budget is shared out among the groups; threshold is the paper's own and needs a metric."
        ),
    ] = "sensitivity",
    refit: Annotated[
        bool,
        Parameter(
            name="--refit", negative="--no-refit", help="Refit the weights of the layers that read pruned channels."
        ),
    ] = True,
    exclude: Annotated[
        Names, Parameter(help="Leave these alone: node, group or weight names, globs, or op:Conv; repeatable.")
    ] = None,
    only: Annotated[Names, Parameter(help="Prune only these; repeatable.")] = None,
    round_to: Annotated[
        int, Parameter(help="Make every new width a multiple of this: 8 or 16 suits most hardware.")
    ] = 1,
    min_width: Annotated[int, Parameter(help="Leave at least so many channels in a group.")] = 1,
    samples: Annotated[
        int | None, Parameter(help="Use the first N samples; fidelity is then measured on the others.")
    ] = None,
    batch_size: Annotated[int, Parameter(help="Run at most N samples at once. The result does not depend on it.")] = 32,
    seed: Annotated[int, Parameter(help="For the selectors that draw at random.")] = 0,
    threads: Annotated[
        int | None, Parameter(help="Threads of onnxruntime and of the linear algebra (all cores).")
    ] = None,
    memory: Annotated[
        str | None,
        Parameter(help="Activations to hold before they go to disk, for example 4G (a quarter of the machine)."),
    ] = None,
    json_file: JsonOption = None,
    html_file: ReportOption = None,
    force: Annotated[bool, Parameter(negative="", help="Overwrite OUTPUT.")] = False,
    quiet: Annotated[bool, Parameter(negative="", help="Print nothing but errors.")] = False,
) -> None:
    """Make MODEL smaller and write the result to OUTPUT.

    Parameters
    ----------
    model
        The ONNX model; it is not changed.
    output
        Where the smaller model goes; large weights go to OUTPUT.data.

    """
    free_path(output, force=force)
    free_json(json_file)
    free_html(html_file)
    metric = metric_of(labels, validate)
    fractions = {"--macs": macs, "--params": params, "--channels": channels, "--latency": latency}
    with Bar(quiet=quiet) as watch:
        result = prune(
            model,
            data,
            budget=budget_of(fractions, max_drop, metric),
            formulation=FORMULATIONS[formulation],
            selector=selectors(seed)[selector],
            allocator=ALLOCATIONS[allocation],
            refit=Refit() if refit else None,
            metric=metric,
            exclude=tuple(exclude or ()),
            only=tuple(only or ()),
            round_to=round_to,
            min_width=min_width,
            resources=resources_of(samples, batch_size, threads, memory),
            progress=watch,
        )
    result.save(output, force=force)
    write_json(json_file, {**result.report.to_dict(), "command": sys.argv[1:]})
    write_report(html_file, result.report)
    if not quiet:
        Console().print(report_table(result.report))
