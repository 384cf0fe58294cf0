"""`onnx-subprune prune`."""

from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from onnx_subprune.allocation import Allocator
from onnx_subprune.cli.application import app
from onnx_subprune.cli.budget import budget_of, metric_of, timed
from onnx_subprune.cli.executor import executor_of
from onnx_subprune.cli.files import guarded, save
from onnx_subprune.cli.options import (
    CarryOption,
    DataOption,
    ForceOption,
    HoldoutOption,
    JsonOption,
    MaskOption,
    QuietOption,
    RecipeOption,
    ReportOption,
    SetOption,
    ShiftsOption,
    ThreadsOption,
    WideOption,
    constants_of,
    read_by,
    resources_of,
    streamed,
)
from onnx_subprune.cli.progress import Bar
from onnx_subprune.cli.prune_options import (
    AcceptAnyOption,
    AllocationOption,
    BatchSizeOption,
    ChannelsOption,
    ExcludeOption,
    FormulationOption,
    LabelsOption,
    LatencyOption,
    MacsOption,
    MaxDropOption,
    MaxErrorOption,
    MeasureOption,
    MemoryOption,
    MinAgreementOption,
    MinWidthOption,
    OnlyOption,
    ParamsOption,
    PositionsOption,
    RefitOption,
    RoundToOption,
    SamplesOption,
    SchedulerOption,
    SeedOption,
    SelectorOption,
    SpeedupOption,
    StatisticsOption,
    TableOption,
    TargetOption,
    TrialsOption,
    ValidateOption,
    layerwise_only,
)
from onnx_subprune.cli.terminal import tell
from onnx_subprune.errors import OptionError
from onnx_subprune.evaluation.gates import Gates
from onnx_subprune.pruning.arguments import ALLOCATORS, FORMULATIONS
from onnx_subprune.pruning.budgets.budget import Budget
from onnx_subprune.pruning.budgets.rounding import RoundTo
from onnx_subprune.pruning.prune import prune
from onnx_subprune.pruning.prune_from_moments import prune_collected
from onnx_subprune.pruning.resources import Resources
from onnx_subprune.reconstruction.settings import Refit
from onnx_subprune.selection import ProbingSelector, Selector, selectors

EXAMPLE = """Examples:

onnx-subprune prune model.onnx small.onnx --data calibration.npz --speedup 2

onnx-subprune prune model.onnx small.onnx --data calibration.npz --macs 50% --exclude 'op:Gemm' --report report.html"""


@app.command(name="prune", help_epilogue=EXAMPLE)
def prune_command(  # noqa: PLR0913 - one argument an option
    model: Path,
    output: Path,
    *,
    data: DataOption | None = None,
    statistics: StatisticsOption = None,
    scheduler: SchedulerOption = None,
    macs: MacsOption = None,
    params: ParamsOption = None,
    channels: ChannelsOption = None,
    latency: LatencyOption = None,
    speedup: SpeedupOption = None,
    table: TableOption = None,
    measure: MeasureOption = None,
    max_drop: MaxDropOption = None,
    labels: LabelsOption = None,
    validate: ValidateOption = None,
    formulation: FormulationOption = None,
    selector: SelectorOption = "refined",
    allocation: AllocationOption = "sensitivity",
    refit: RefitOption = True,
    exclude: ExcludeOption = None,
    only: OnlyOption = None,
    round_to: RoundToOption = "auto",
    target: TargetOption = None,
    min_width: MinWidthOption = None,
    samples: SamplesOption = None,
    holdout: HoldoutOption = None,
    batch_size: BatchSizeOption = 32,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
    memory: MemoryOption = None,
    positions: PositionsOption = None,
    shifts: ShiftsOption = None,
    mask: MaskOption = None,
    trials: TrialsOption = None,
    constants: SetOption = None,
    carry: CarryOption = None,
    accept_any: AcceptAnyOption = False,
    min_agreement: MinAgreementOption = None,
    max_error: MaxErrorOption = None,
    json_file: JsonOption = None,
    html_file: ReportOption = None,
    recipe_file: RecipeOption = None,
    force: ForceOption = False,
    quiet: QuietOption = False,
    wide: WideOption = False,
) -> None:
    """Make MODEL smaller and write the result to OUTPUT.

    Parameters
    ----------
    model
        The ONNX model; it is not changed.
    output
        Where the smaller model goes; large weights go to OUTPUT.data.

    """
    outputs = {"OUTPUT": output, "--json": json_file, "--report": html_file, "--recipe": recipe_file}
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
            allocator=ALLOCATORS[allocation],
            refit=Refit() if refit else None,
            exclude=tuple(exclude or ()),
            only=tuple(only or ()),
            round_to=round_to,
            target=target,
            min_width=min_width,
            resources=replace(
                resources_of(samples, batch_size, threads, memory, positions, trials),
                shifts=shifts,
                mask=mask,
                holdout=holdout,
            ),
        )
        gates = Gates(accept_any=accept_any, min_agreement=min_agreement, max_error=max_error)
        with Bar(quiet=quiet) as watch:
            if statistics is not None:
                layerwise_only(formulation, settings["resources"], data, scheduler, metric, gates, constants, carry)
                result = prune_collected(model, statistics, **settings, progress=watch)
            elif data is not None:
                form = FORMULATIONS[formulation or "asymmetric"]
                with executor_of(scheduler) as executor:
                    result = prune(
                        model,
                        streamed(model, data, carry, constants),
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
        save(result, output, force=force, json=json_file, html=html_file, recipe=recipe_file)
    tell(result.report, quiet=quiet, wide=wide)


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
