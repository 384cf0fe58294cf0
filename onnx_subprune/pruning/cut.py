"""The smaller model itself: cut as the walk says, verified, and measured against the original."""

from dataclasses import dataclass, replace
from pathlib import Path

from onnx import ModelProto

from onnx_subprune.allocation import Latency, Params
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.evaluation.fidelity import fidelity
from onnx_subprune.evaluation.fronts import with_fronts
from onnx_subprune.evaluation.latency import measured_latency, raced, raced_feeds, single_latency
from onnx_subprune.evaluation.layers import LayerTime, layer_times
from onnx_subprune.evaluation.measures import Fidelity
from onnx_subprune.evaluation.metric import Accuracy
from onnx_subprune.evaluation.parts import parts_of
from onnx_subprune.evaluation.report.values import Change
from onnx_subprune.evaluation.timing import Timing
from onnx_subprune.evaluation.verification import verify
from onnx_subprune.graph.costs.count import parameters
from onnx_subprune.graph.folding.fold import Folded, folded
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.save import Settled, settled, side_file_wanted
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.pruning.budgets.latency import result_timing
from onnx_subprune.pruning.job import Job
from onnx_subprune.pruning.samples import Samples
from onnx_subprune.pruning.written import Count, check_budget, counted
from onnx_subprune.reconstruction.finetuning.settings import FineTuned
from onnx_subprune.reconstruction.settings import Reconstruction
from onnx_subprune.runtime.session import Runnable


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cut:
    """A smaller model, with the folder of its side files; `apart` keeps weights on disk.

    deviation: how far it is from its plan. costs: of the original and of this one, counted in the models. folded: what was folded in the end.
    """

    model: ModelProto
    folder: Path | None
    apart: Settled | None
    deviation: float
    costs: tuple[Count, Count]
    folded: Folded


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """What the smaller model is beside the original on data: nothing of it without data.

    latency: of runs of `batch` samples, None where the user's own command says what it is of. single: of runs of one, where that is another number.
    """

    latency: Timing | None = None
    batch: int | None = None
    single: Timing | None = None
    layers: tuple[LayerTime, ...] = ()
    fidelity: Fidelity | None = None
    metric: Change | None = None
    tuning: FineTuned | None = None


def cut(job: Job, done: Reconstruction, data: Calibration) -> Cut:
    """Return the model that `done` leads to, verified on some of `data`; VerificationError if it is not what it must be.

    BudgetError if it is larger than it may be.
    """
    network, graph = job.network, job.task.graph
    plan = Plan(supports={name: choice.support for name, choice in done.choices.items()}, weights=done.weights)
    shorter = _shorter(apply(network, graph, plan, rules=job.settings.rules), network.folder, job.settings.budget)
    small = shorter.model
    apart = settled(small, network.folder if side_file_wanted(network.proto) else None)
    small, folder = (small, network.folder) if apart is None else (apart.model, apart.folder)
    costs = counted(job.original, graph), counted(Network(small, folder), graph)
    check_budget(job.settings.budget, *costs, job.rooms, job.price)
    deviation = verify(network, graph, plan, small, data, folder)
    return Cut(model=small, folder=folder, apart=apart, deviation=deviation, costs=costs, folded=shorter)


def _shorter(model: ModelProto, folder: Path | None, budget: object) -> Folded:
    """The model with what can be folded, unless parameters are bounded and biases that are added have more of them."""
    found = folded(model)
    if isinstance(budget, Params) and found.maps:
        before, after = (parameters(Network(item, folder)) for item in (model, found.model))
        return found if after <= before else Folded(model=model)
    return found


def timed(job: Job, samples: Samples, smaller: Cut) -> Timing | None:
    """Return how long the smaller model takes beside the original, None where it is for another machine; what is in doubt is measured for longer."""
    before, after = Runnable(job.original.timed, job.original.folder), Runnable(smaller.model, smaller.folder)

    def here(seconds: float) -> Timing:
        return measured_latency(*_racing(job, smaller), samples.used, job.settings.resources.threads, seconds)

    return result_timing(job.settings.budget, before, after, here)


def _racing(job: Job, smaller: Cut) -> tuple[Runnable, Runnable]:
    """Both models on the providers that count for time."""
    providers = job.task.running.placement.timed
    before, after = Runnable(job.original.timed, job.original.folder), Runnable(smaller.model, smaller.folder)
    return before.on(providers), after.on(providers)


def measure(job: Job, samples: Samples, smaller: Cut, timing: Timing | None) -> Measured:
    """Return the latency, `timing`, with fidelity and the user's metric, before and after."""
    threads = job.settings.resources.threads
    before, after = Runnable(job.original.given, job.original.folder), Runnable(smaller.model, smaller.folder)
    scores = Change(job.judge.base, job.judge.judge(smaller.model)) if job.judge is not None else None
    judged = samples.judged.data if samples.held_out else judged_of(samples.used)
    seen = job.task.graph.observation
    places = parts_of(job.network, seen, (*job.network.outputs, *seen.fronts))
    shown = with_fronts(before, after, seen)
    faithful = fidelity(*shown.models, judged, threads=threads, places=places, left_out=shown.left_out).on(
        held_out=samples.held_out
    )
    if scores is not None and isinstance(job.settings.judged_by, Accuracy):
        faithful = replace(faithful, accuracy=(scores.before, scores.after))
    layers = layer_times(
        job.original, job.task.graph, after.on(job.task.running.placement.timed), raced_feeds(samples.used), threads
    )
    found = Measured(latency=timing, layers=layers, fidelity=faithful, metric=scores)
    if timing is None or (isinstance(job.settings.budget, Latency) and job.settings.budget.measure is not None):
        return found
    single = single_latency(*_racing(job, smaller), samples.used, threads)
    return replace(found, batch=raced(samples.used), single=single)


JUDGED, JUDGED_BYTES = 256, 1 << 24
"""Samples of the calibration data that fidelity is measured on where none are held out: what was fitted says little about others anyway."""


def judged_of(data: Calibration) -> Calibration:
    """Return the first samples, as many as fidelity is measured on."""
    return data.take(max(data.chunk, min(JUDGED, JUDGED_BYTES // max(data.sample_bytes, 1))))
