"""The whole story: prepare, allocate, walk, cut, measure, summarize."""

import time
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType, NoneType
from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits

from onnx_subprune.allocation import Macs, MarginalCost
from onnx_subprune.calibration.data.constants import Constant
from onnx_subprune.calibration.data.sources import Source
from onnx_subprune.calibration.streaming.executor import Executor
from onnx_subprune.calibration.survey import LOCAL
from onnx_subprune.errors import typed
from onnx_subprune.evaluation.gates import Gates
from onnx_subprune.evaluation.metric import Accuracy, Metric, Validation
from onnx_subprune.graph.formats import Model
from onnx_subprune.graph.rules import RULES
from onnx_subprune.graph.rules.vocabulary import Rule
from onnx_subprune.pruning.arguments import (
    AllocatorLike,
    BudgetLike,
    FineTuneLike,
    FormulationLike,
    Patterns,
    RefitLike,
    SelectorLike,
    allocator_of,
    budget_of,
    finetune_of,
    formulation_of,
    patterns_of,
    refit_of,
    selector_of,
    value_of,
)
from onnx_subprune.pruning.budgets.ladder import Allocated
from onnx_subprune.pruning.budgets.rounding import RoundTo
from onnx_subprune.pruning.budgets.widths import Means, allocated
from onnx_subprune.pruning.channel_scores import scored
from onnx_subprune.pruning.cut import measure
from onnx_subprune.pruning.domains import within_domains
from onnx_subprune.pruning.in_time import in_time
from onnx_subprune.pruning.job import Job
from onnx_subprune.pruning.judgement import reviewed
from onnx_subprune.pruning.preparation import prepare
from onnx_subprune.pruning.resources import Resources
from onnx_subprune.pruning.result import Pruned
from onnx_subprune.pruning.settings import Settings
from onnx_subprune.pruning.summary import summarize
from onnx_subprune.reconstruction.settings import Asymmetric, Refit
from onnx_subprune.runtime.later import later
from onnx_subprune.runtime.progress import Watch, silent
from onnx_subprune.selection import Refined

if TYPE_CHECKING:
    from onnx_subprune.pruning.finetuning import tuned
else:
    tuned = later("onnx_subprune.pruning.finetuning", "tuned")


@typed("round_to", "target", "min_width", "progress", "executor")
def prune(  # noqa: PLR0913 - the interface's signature
    model: Model,
    data: Source,
    *,
    budget: BudgetLike = Macs(0.5),
    formulation: FormulationLike = Asymmetric(),
    selector: SelectorLike = Refined(),
    allocator: AllocatorLike = MarginalCost(),
    exclude: Patterns = (),
    only: Patterns = (),
    round_to: RoundTo = "auto",
    target: str | None = None,
    min_width: int | None = None,
    refit: RefitLike = Refit(),
    metric: Metric | None = None,
    gates: Gates = Gates(),
    rules: Mapping[str, Rule] = RULES,
    resources: Resources = Resources(),
    progress: Watch = silent,
    executor: Executor = LOCAL,
    constants: Mapping[str, Constant] = MappingProxyType({}),
    finetune: FineTuneLike = None,
) -> Pruned:
    """Make `model` smaller, so that it meets `budget` and its outputs on `data` change as little as possible.

    Nothing passed in is changed, and nothing is written: `Pruned.save` writes.

    Parameters
    ----------
    model
        The path of an .onnx file, its bytes, an `onnx.ModelProto` or an `onnx_ir.Model`.
    data
        Inputs as the model wants them, unlabelled: a path (as on the command line), an array, a dictionary of arrays, an iterable of arrays, dictionaries
        or tuples in the order of the inputs (a generator, a list, a DataLoader), a `CalibrationDataReader`, or a function that returns one of these.
    budget
        A fraction of the multiply-accumulates to keep, such as 0.5, or `Macs`, `Params`, `Channels`, `Latency`, `MaxDrop`.
    formulation
        Where inputs and targets of the refit come from: "asymmetric", "sequential", "layerwise".
    selector
        How the channels of a group are chosen: "refined", "forward" ... (`--selector` has the names), or anything with the methods of `Selector`.
    allocator
        How the budget is shared out: "sensitivity", "uniform", "threshold" (needs a metric), or anything with the methods of `Allocator`.
    exclude, only
        Patterns (globs) of node, group or weight names, or "op:Conv": what to leave alone, or to prune alone.
    round_to
        Widths are multiples of this; groups that have no smaller one take its halves. "auto": of what `target` likes; with a budget of parameters and
        no target any width.
    target
        The machine that the model is for, a name in `graph.targets`; None for this one.
    min_width
        No group gets narrower; at 0, the default with rounded widths or a budget of latency, whole residual,
        attention and feed-forward blocks may go.
    refit
        False keeps the weights as they are.
    metric
        `Accuracy` or `Validation`, measured before and after (by default that of the budget).
    gates
        How close to the original the result must be.
    rules
        What is known of operators, by name.
    resources
        How much of the data, the machine and the time may be used.
    progress
        Is called at every step.
    executor
        Where the models run: here, or on a cluster.
    constants
        Values of inputs that are the same for all samples, by name.
    finetune
        Distil the original into the result on the same inputs: a number of steps, a time such as "5min", True, or `FineTune`.

    Returns
    -------
    The smaller model with a report on it.

    Raises
    ------
    SubpruneError
        Of the kind that fits, with one line that says what to do: ModelError, DataError, BudgetError, OptionError, FidelityError,
        VerificationError; ArgumentTypeError, a TypeError, for an argument of a type that is not taken.

    Examples
    --------
    >>> from onnx_subprune import prune
    >>> result = prune("model.onnx", "calibration.npz", budget=0.5)
    >>> result.report.macs.ratio <= 0.5
    True
    >>> result.save("small.onnx")

    """
    start = time.perf_counter()
    settings = Settings(
        budget=budget_of(budget),
        formulation=formulation_of(formulation),
        selector=selector_of(selector),
        allocator=allocator_of(allocator),
        exclude=patterns_of("exclude", exclude),
        only=patterns_of("only", only),
        round_to=round_to,
        target=target,
        min_width=min_width,
        refit=refit_of(refit),
        metric=value_of(
            "metric", metric, (Accuracy, Validation, NoneType), "Accuracy('y.npy') or Validation(function)"
        ),
        gates=value_of("gates", gates, Gates, "Gates(...)"),
        rules=value_of("rules", rules, Mapping, "a dictionary such as {**RULES, 'my.domain.Op': Rule(...)}"),
        resources=value_of("resources", resources, Resources, "Resources(samples=256, ...)"),
        progress=progress,
        constants=value_of("constants", constants, Mapping, "a dictionary of values by input name"),
        executor=executor,
        finetune=finetune_of(finetune),
    )
    job, samples = prepare(model, data, settings)
    traced = time.perf_counter()
    with threadpool_limits(1):
        job = replace(job, task=scored(job.task, job.rooms, settings.probed))
        job, found, done = within_domains(job, meet)
    rebuilt = time.perf_counter()
    settled = rebuilt - sum(done.seconds.values())
    made = in_time(job, samples, found, done)
    verified = time.perf_counter()
    untouched = job, made.smaller, None
    job, smaller, tuning = untouched if settings.finetune is None else tuned(job, samples, made.smaller)
    taught = time.perf_counter() - verified
    measured = measure(job, samples, smaller, made.timing)
    job = reviewed(job, samples, made.done, measured, rebuilt - traced)
    end, again = time.perf_counter(), sum(made.done.seconds.values()) - sum(done.seconds.values())
    seconds = {"trace": traced - start, "sensitivity": settled - traced, **made.done.seconds}
    seconds |= {"fine-tuning": taught} if tuning is not None else {}
    seconds |= {"verify": end - rebuilt - taught - again, "total": end - start}
    return summarize(job, made.found, made.done, smaller, replace(measured, tuning=tuning), seconds)


def meet(job: Job) -> Allocated:
    """Return the widths that meet the budget; one that is met by trying brings its walk with it."""
    means = Means(
        price=job.price,
        rounding=job.rounding,
        rules=job.settings.rules,
        judged=job.chooser,
        trials=job.trials,
        candidates=job.candidates,
    )
    return allocated(job.task, job.rooms, job.settings.budget, job.settings.allocator, means)
