"""`onnx-subprune prune`."""

import sys
from pathlib import Path
from typing import Annotated, Literal, TypedDict

from cyclopts import Parameter

from onnx_subprune.allocation import Allocator, MarginalCost, Threshold, Uniform
from onnx_subprune.cli.application import app
from onnx_subprune.cli.budget import budget_of, metric_of, timed
from onnx_subprune.cli.executor import executor_of
from onnx_subprune.cli.files import guarded, json_text, report_text, written
from onnx_subprune.cli.options import (
    DataOption,
    ForceOption,
    HoldoutOption,
    JsonOption,
    MaskOption,
    Names,
    ReportOption,
    SetOption,
    ShiftsOption,
    constants_of,
    read_by,
    resources_of,
)
from onnx_subprune.cli.progress import Bar
from onnx_subprune.cli.terminal import printable, show
from onnx_subprune.errors import OptionError
from onnx_subprune.evaluation.gates import Gates
from onnx_subprune.evaluation.metric import Metric
from onnx_subprune.evaluation.report import report_table
from onnx_subprune.pruning.budgets import Budget
from onnx_subprune.pruning.prune import prune
from onnx_subprune.pruning.prune_from_moments import prune_collected
from onnx_subprune.pruning.resources import Resources
from onnx_subprune.pruning.rounding import RoundTo
from onnx_subprune.reconstruction.settings import Asymmetric, Formulation, Layerwise, Refit, Sequential
from onnx_subprune.selection import ProbingSelector, Selector, selectors

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
    data: DataOption | None = None,
    statistics: Annotated[
        Path | None,
        Parameter(
            help="In place of --data: moments of the original model, from `collect` and `merge`. Then the formulation is layerwise, "
            "widths follow from the errors of each layer alone, and fidelity is not measured."
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        Parameter(
            help="Run the models on --data on the workers of dask.distributed whose scheduler is here, for example tcp://host:8786. The result "
            "is the same."
        ),
    ] = None,
    macs: Annotated[
        float | None,
        Parameter(help="Keep at most this fraction of the multiply-accumulates (0.5 if no budget is given)."),
    ] = None,
    params: Annotated[float | None, Parameter(help="Keep at most this fraction of the parameters.")] = None,
    channels: Annotated[float | None, Parameter(help="Keep this fraction of every group, without allocation.")] = None,
    latency: Annotated[
        float | None, Parameter(help="Take at most this fraction of the original's latency, measured here.")
    ] = None,
    speedup: Annotated[
        float | None, Parameter(help="Be so many times as fast as the original, measured here: 2 is --latency 0.5.")
    ] = None,
    table: Annotated[
        str | None,
        Parameter(
            help="With --latency or --speedup: a table of `onnx-subprune profile` from the machine that the model is for; nothing is measured here then."
        ),
    ] = None,
    measure: Annotated[
        str | None,
        Parameter(
            help="With --latency or --speedup: a command that prints the milliseconds of a model, for example 'ssh pi bench.sh {model}', in place of "
            "measuring here."
        ),
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
        Literal["asymmetric", "sequential", "layerwise"] | None,
        Parameter(
            help="Where inputs and targets of the refit come from: asymmetric, the default, repairs the errors of earlier layers."
        ),
    ] = None,
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
            "taylor",
            "layer-greedy-fs",
            "shapley",
        ],
        Parameter(help="How the channels of a group are chosen."),
    ] = "refined",
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
        int | Literal["auto"],
        Parameter(
            help="Make every new width a multiple of N, for kernels that work on N channels at once; 1 for any width. The default, auto, takes "
            "what --target likes for each group of channels, and any width with --params. Groups of at most N channels, which have no smaller "
            "multiple, get N/2, N/4 ...; --min-width N forbids that. Whole residual branches may go as well, unless --min-width is given. "
            "With --macs the work of such kernels is bounded too, to about the same fraction, so that the result can be narrower than the "
            "multiply-accumulates alone ask for; --channels keeps at least its fraction."
        ),
    ] = "auto",
    target: Annotated[
        Literal[
            "cpu-avx512",
            "cpu-avx2",
            "arm64",
            "tensorrt-fp16",
            "tensorrt-int8",
            "qnn",
            "coreml",
            "webgpu",
            "none",
        ]
        | None,
        Parameter(help="Machine that the model is for (this one); none: any width, for size alone."),
    ] = None,
    min_width: Annotated[
        int | None,
        Parameter(
            help="Leave at least so many channels in a group; 0 lets whole residual branches go. [default: 0 with rounded widths or --latency, else 1]"
        ),
    ] = None,
    samples: Annotated[
        int | None, Parameter(help="Use the first N samples; fidelity is then measured on the others.")
    ] = None,
    holdout: HoldoutOption = None,
    batch_size: Annotated[int, Parameter(help="Run at most N samples at once. The result does not depend on it.")] = 32,
    seed: Annotated[int, Parameter(help="For the selectors that draw at random.")] = 0,
    threads: Annotated[
        int | None, Parameter(help="Threads of onnxruntime and of the linear algebra (all cores).")
    ] = None,
    memory: Annotated[
        str | None,
        Parameter(
            help="Memory to aim at, for example 4G (a quarter of the machine): activations that do not fit go to disk."
        ),
    ] = None,
    positions: Annotated[
        int | None,
        Parameter(
            help="Refit convolutions (asymmetric) on N drawn output positions of a sample, where there are 3 N or more (128 rows a column)."
        ),
    ] = None,
    shifts: ShiftsOption = None,
    mask: MaskOption = None,
    trials: Annotated[
        int | None,
        Parameter(
            help="Try N other ways to share out a budget of multiply-accumulates or parameters, fitted on three quarters of the samples and "
            "judged on the rest (24 for small networks, 0 for others, whose trials cost as much as a pruning each)."
        ),
    ] = None,
    constants: SetOption = None,
    accept_any: Annotated[
        bool, Parameter(negative="", help="Write the result even if it is no better than a constant.")
    ] = False,
    min_agreement: Annotated[
        float | None,
        Parameter(
            help="Write nothing, and exit with 1, if an output agrees with the original's for a smaller share of the samples."
        ),
    ] = None,
    max_error: Annotated[
        float | None,
        Parameter(help="Write nothing, and exit with 1, if an output has a larger relative error."),
    ] = None,
    json_file: JsonOption = None,
    html_file: ReportOption = None,
    force: ForceOption = False,
    quiet: Annotated[bool, Parameter(negative="", help="Print nothing but errors and warnings.")] = False,
) -> None:
    """Make MODEL smaller and write the result to OUTPUT.

    Parameters
    ----------
    model
        The ONNX model; it is not changed.
    output
        Where the smaller model goes; large weights go to OUTPUT.data.

    """
    outputs = {"OUTPUT": output, "--json": json_file, "--report": html_file}
    sources = (data, labels, validate, table, None if statistics is None else str(statistics), *read_by(constants))
    with guarded(outputs, models=[model], sources=sources, force=force):
        metric = metric_of(labels, validate)
        fractions = {
            "--macs": macs,
            "--params": params,
            "--channels": channels,
            "--latency": latency,
            "--speedup": speedup,
        }
        settings = _Settings(
            budget=timed(budget_of(fractions, max_drop, metric), table, measure),
            selector=selectors(seed)[selector],
            allocator=ALLOCATIONS[allocation],
            refit=Refit() if refit else None,
            exclude=tuple(exclude or ()),
            only=tuple(only or ()),
            round_to=round_to,
            target=target,
            min_width=min_width,
            resources=resources_of(
                samples,
                batch_size,
                threads,
                memory,
                positions,
                shifts=shifts,
                trials=trials,
                mask=mask,
                holdout=holdout,
            ),
        )
        gates = Gates(accept_any=accept_any, min_agreement=min_agreement, max_error=max_error)
        with Bar(quiet=quiet) as watch:
            if statistics is not None:
                if gates.asked:
                    raise OptionError(
                        "--accept-any, --min-agreement, --max-error: with --statistics there are no data to judge the result on"
                    )
                _layerwise_only(data, formulation, settings["resources"], scheduler, metric)
                if constants:
                    raise OptionError("--set: with --statistics nothing is run; give it to `collect`")
                result = prune_collected(model, statistics, **settings, progress=watch)
            elif data is not None:
                form = FORMULATIONS[formulation or "asymmetric"]
                with executor_of(scheduler) as executor:
                    result = prune(
                        model,
                        data,
                        formulation=form,
                        metric=metric,
                        gates=gates,
                        executor=executor,
                        constants=constants_of(constants),
                        **settings,
                        progress=watch,
                    )
            else:
                raise OptionError("no data: give --data, or --statistics collected from it")
        report = result.report
        texts = {
            json_file: lambda: json_text({**report.to_dict(), "command": sys.argv[1:]}),
            html_file: lambda: report_text(report),
        }
        with written(texts):
            result.save(output, force=force)
    for warning in report.warnings:
        print("warning:", printable(" ".join(warning.split())), file=sys.stderr)
    if not quiet:
        show(report_table(report))


class _Settings(TypedDict):
    budget: Budget
    selector: Selector | ProbingSelector
    allocator: Allocator
    refit: Refit | None
    exclude: tuple[str, ...]
    only: tuple[str, ...]
    round_to: RoundTo
    target: str | None
    min_width: int | None
    resources: Resources


def _layerwise_only(
    data: str | None, formulation: str | None, resources: Resources, scheduler: str | None, metric: Metric | None
) -> None:
    if data is not None:
        raise OptionError("--data and --statistics: give one of them")
    if formulation not in (None, "layerwise"):
        raise OptionError(
            f"--formulation {formulation} runs the models on --data; from --statistics only layerwise is possible"
        )
    if resources.samples is not None:
        raise OptionError("--samples: the moments are of all samples that were collected; give it to `collect`")
    if resources.holdout is not None:
        raise OptionError(
            "--holdout: the moments are of all samples that were collected, and there are no others to judge the result on"
        )
    if scheduler is not None:
        raise OptionError("--scheduler runs the models on --data; with --statistics nothing is run")
    if metric is not None:
        raise OptionError("a metric (--labels, --validate) is measured on --data; with --statistics nothing is run")
