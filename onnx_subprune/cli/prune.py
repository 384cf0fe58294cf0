"""`onnx-subprune prune`."""

from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from onnx_subprune.allocation import Allocator
from onnx_subprune.calibration.data.carried import carries_named
from onnx_subprune.cli import options, prune_options
from onnx_subprune.cli.budget import budget_of, metric_of, timed
from onnx_subprune.cli.executor import executor_of
from onnx_subprune.cli.files import guarded, placed, save
from onnx_subprune.cli.groups import STDOUT
from onnx_subprune.cli.options import constants_of, read_by, resources_of, streamed
from onnx_subprune.cli.progress import Bar
from onnx_subprune.cli.terminal import tell
from onnx_subprune.cli.without_data import finetune_on, layerwise_only
from onnx_subprune.errors import OptionError
from onnx_subprune.evaluation.gates import Gates
from onnx_subprune.pruning.arguments import ALLOCATORS, FORMULATIONS
from onnx_subprune.pruning.budgets.budget import Budget
from onnx_subprune.pruning.budgets.rounding import RoundTo
from onnx_subprune.pruning.prune import prune
from onnx_subprune.pruning.prune_from_moments import prune_collected
from onnx_subprune.pruning.resources import Resources
from onnx_subprune.pruning.streams import with_own_states
from onnx_subprune.reconstruction.settings import Refit
from onnx_subprune.selection import ProbingSelector, Selector, selectors


def prune_command(  # noqa: PLR0913 - one argument an option
    model: Path,
    output: Path,
    *,
    data: options.DataOption | None = None,
    statistics: prune_options.StatisticsOption = None,
    scheduler: prune_options.SchedulerOption = None,
    macs: prune_options.MacsOption = None,
    params: prune_options.ParamsOption = None,
    channels: prune_options.ChannelsOption = None,
    latency: prune_options.LatencyOption = None,
    speedup: prune_options.SpeedupOption = None,
    table: prune_options.TableOption = None,
    measure: prune_options.MeasureOption = None,
    max_drop: prune_options.MaxDropOption = None,
    labels: prune_options.LabelsOption = None,
    validate: prune_options.ValidateOption = None,
    formulation: prune_options.FormulationOption = None,
    selector: prune_options.SelectorOption = "refined",
    allocation: prune_options.AllocationOption = "sensitivity",
    refit: prune_options.RefitOption = True,
    finetune: prune_options.FinetuneOption = None,
    exclude: prune_options.ExcludeOption = None,
    only: prune_options.OnlyOption = None,
    round_to: prune_options.RoundToOption = "auto",
    target: prune_options.TargetOption = None,
    min_width: prune_options.MinWidthOption = None,
    samples: prune_options.SamplesOption = None,
    holdout: options.HoldoutOption = None,
    batch_size: options.BatchSizeOption = 32,
    seed: prune_options.SeedOption = 0,
    threads: options.ThreadsOption = None,
    providers: options.ProvidersOption = None,
    memory: prune_options.MemoryOption = None,
    positions: prune_options.PositionsOption = None,
    shifts: options.ShiftsOption = None,
    mask: options.MaskOption = None,
    trials: prune_options.TrialsOption = None,
    constants: options.SetOption = None,
    carry: options.CarryOption = None,
    accept_any: prune_options.AcceptAnyOption = False,
    min_agreement: prune_options.MinAgreementOption = None,
    max_error: prune_options.MaxErrorOption = None,
    json_file: options.JsonOption = None,
    html_file: options.ReportOption = None,
    recipe_file: options.RecipeOption = None,
    force: options.ForceOption = False,
    quiet: options.QuietOption = False,
    wide: options.WideOption = False,
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
                resources_of(samples, batch_size, threads, memory, positions, trials, providers=providers),
                shifts=shifts,
                mask=mask,
                holdout=holdout,
            ),
        )
        taught = finetune_on(finetune, seed, statistics)
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
                        finetune=taught,
                        executor=executor,
                        constants=constants_of(constants),
                        **settings,
                        progress=watch,
                    )
            else:
                raise OptionError("no data: give --data, or --statistics collected from it")
        if carry and data is not None:
            result = with_own_states(result, model, data, carries_named(carry), constants_of(constants))
        result = placed(result, output)
        save(result, output, force=force, json=json_file, html=html_file, recipe=recipe_file)
    tell(result.report, quiet=quiet or json_file == STDOUT, wide=wide)


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
