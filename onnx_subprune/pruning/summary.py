"""What is said of a run: the report, and what became of each group."""

from collections.abc import Mapping
from types import MappingProxyType

from onnx_subprune.allocation import Macs, Params
from onnx_subprune.allocation.widths import GroupSensitivity
from onnx_subprune.evaluation.layers import slower_because
from onnx_subprune.evaluation.report.model import Report
from onnx_subprune.evaluation.report.removed import gone_with, removed, still_pinned
from onnx_subprune.evaluation.report.values import Change, GroupReport
from onnx_subprune.graph.channels import ChannelGraph
from onnx_subprune.graph.save import NAMED, side_file_wanted, written_bytes
from onnx_subprune.graph.squeezes import without_axes
from onnx_subprune.pruning.budgets.ladder import Allocated
from onnx_subprune.pruning.cut import Cut, Measured
from onnx_subprune.pruning.job import Job
from onnx_subprune.pruning.result import Pruned
from onnx_subprune.pruning.stamp import stamped
from onnx_subprune.pruning.written import resized
from onnx_subprune.reconstruction.settings import Reconstruction
from onnx_subprune.reconstruction.task import Task
from onnx_subprune.runtime.session import environment
from onnx_subprune.selection import Choice

BEYOND, CONSTANT = 1.1, 0.05
"""More of the time than so many times the share of the multiply-accumulates that was asked for, and this share of it, is worth a note."""


def summarize(
    job: Job, found: Allocated, done: Reconstruction, smaller: Cut, measured: Measured, seconds: Mapping[str, float]
) -> Pruned:
    """Return the smaller model with the report on it; `seconds` by stage."""
    network, timed = job.original, measured.latency
    gone = gone_with(job.task.network, job.task.graph, _empty(done))
    groups = group_reports(job.task.graph, done, found.sensitivity, job.turned, gone)
    stamped(smaller.model, job.task.graph, groups)
    written = without_axes(smaller.model, network.squeezed)
    side_file = side_file_wanted(smaller.model) or side_file_wanted(network.proto)
    report = Report(
        model=job.model,
        data=job.data,
        settings=job.described,
        environment=environment(),
        params=Change(smaller.costs[0].params, smaller.costs[1].params),
        macs=Change(smaller.costs[0].macs, smaller.costs[1].macs),
        size=Change(network.size, written_bytes(written, NAMED, side_file=side_file)),
        latency=None if timed is None else Change(timed.before, timed.after),
        latency_ratios=None if timed is None else timed.ratios,
        latency_batch=measured.batch,
        latency_single=measured.single,
        groups=groups,
        pinned=still_pinned(job.task.network, job.task.graph, _empty(done)),
        fidelity=measured.fidelity,
        metric=measured.metric,
        finetuning=measured.tuning,
        deviation=smaller.deviation,
        seconds=seconds,
        notes=(
            *job.notes,
            *_gone(job.task, done),
            *_rounding_note(job, found),
            *_time_note(job, measured),
            *_bases(job, done),
            *_folded(job, smaller),
            *_domains(done),
            *_ranked(job),
        ),
        warnings=(*job.warnings, *_warnings(job, measured)),
        composites=resized(*smaller.costs),
        layers=measured.layers,
    )
    return Pruned(model=written, report=report, folder=smaller.folder, side_file=side_file, apart=smaller.apart)


def _gone(task: Task, done: Reconstruction) -> list[str]:
    """Which blocks are gone as a whole."""
    return removed(task.network, task.graph, _empty(done))


def _empty(done: Reconstruction) -> list[str]:
    """The groups that lose all their channels."""
    return [name for name, choice in done.choices.items() if not choice.support]


def _domains(done: Reconstruction) -> list[str]:
    """Which layers keep their weights because of what is behind them."""
    return [
        f"{item.node} keeps its old weights: with others {item.domain} behind it puts out something else than finite numbers"
        for item in done.refits.values()
        if item.domain is not None
    ]


def _ranked(job: Job) -> list[str]:
    """Which outputs are judged by what is in front of them."""
    return [
        f"the rows of {name!r} are chosen or put in order by scores, where the last digit may decide: what they are chosen from is compared"
        for name in job.task.graph.observation.ranked
    ]


def _bases(job: Job, done: Reconstruction) -> list[str]:
    """How many groups lost numbers of another basis."""
    count = sum(
        0 < len(done.choices[name].support) < job.task.graph.group(name).width
        for name in job.turned & done.choices.keys()
    )
    what = "a group loses" if count == 1 else f"{count} groups lose"
    return (
        [
            f"{what} the last channels, or numbers of heads, in another basis, in which these matter least, in place of a subset"
        ]
        if count
        else []
    )


def _folded(job: Job, smaller: Cut) -> list[str]:
    """What the written model does without."""
    maps, activations = job.steps[0] + smaller.folded.maps, job.steps[1] + smaller.folded.activations
    parts = [f"{maps} nodes that scale or shift channels are part of the convolutions beside them"] if maps else []
    parts += [f"{activations} activations that were spelled out are HardSigmoid"] if activations else []
    return [f"the same function in fewer steps: {', '.join(parts)}"] if parts else []


def _rounding_note(job: Job, found: Allocated) -> tuple[str, ...]:
    """What rounding cost: how much less is left than was asked for."""
    target, budget = job.rounding.target, job.settings.budget
    if target is None or not isinstance(budget, Macs):
        return ()
    left = job.price.macs(found.widths) / job.price.macs({})
    if any(found.widths.get(room.name, room.width) not in room.choices for room in job.rooms):
        return (
            f"widths are in smaller blocks than {target.name} computes at once: with those more would be lost, or no time won",
        )
    return (
        f"widths are in blocks that {target.name} computes at once: {left:.1%} of the multiply-accumulates are left where at most "
        f"{budget.fraction:.1%} were asked for; --round-to 1 uses them up, at widths that kernels pad",
    )


def _time_note(job: Job, measured: Measured) -> tuple[str, ...]:
    """That less time goes than multiply-accumulates, where it does, and why."""
    latency, budget = measured.latency, job.settings.budget
    if latency is None or not isinstance(budget, Macs):
        return ()
    surely = latency.ratios[0]  # the lower quartile
    if not BEYOND * budget.fraction + CONSTANT < surely < 1.0:
        return ()
    why = f"; {slower_because(measured.layers)}" if measured.layers else ""
    return (
        f"{latency.ratio:.0%} of the time are left where {budget.fraction:.1%} of the multiply-accumulates were asked for{why}; "
        "--speedup and --latency bound the time itself",
    )


def _warnings(job: Job, measured: Measured) -> tuple[str, ...]:
    """What the user should know: a budget of work that brought no time."""
    latency, single, budget = measured.latency, measured.single, job.settings.budget
    if latency is None or isinstance(budget, Params):
        return ()
    if latency.ratio < 1.0 and single is not None and single.ratios[0] > 1.0:
        return (
            f"run on one sample at a time the result is not faster than the original: {single.after:.3g} ms against {single.before:.3g} ms",
        )
    if latency.ratio < 1.0:
        return ()
    why = f"; {slower_because(measured.layers)}" if measured.layers else ""
    return (
        f"the result is not faster than the original: {latency.after:.3g} ms against {latency.before:.3g} ms, with "
        f"{job.rounding.name} as the multiple of its widths{why}",
    )


def group_reports(
    graph: ChannelGraph,
    done: Reconstruction,
    sensitivity: Mapping[str, GroupSensitivity],
    turned: frozenset[str] = frozenset(),
    gone: Mapping[str, str] = MappingProxyType({}),
) -> tuple[GroupReport, ...]:
    """Return a report on every group of `graph`; those of `turned` are in other bases than the model's, and `gone` says which went with which block."""
    reports = []
    for group in graph.groups:
        choice = Choice((), 0.0) if group.name in gone else done.choices.get(group.name)
        curve = sensitivity[group.name].output if group.name in sensitivity else None
        reports.append(
            GroupReport(
                name=group.name,
                width=(group.width, len(choice.support) if choice else group.width),
                kept=choice.support if choice else tuple(range(group.width)),
                error=choice.error if choice else 0.0,
                conditioning=choice.conditioning if choice else None,
                data=choice.data if choice else None,
                curve=(curve.widths, curve.errors) if curve else None,
                basis=group.name in turned and (choice is None or bool(choice.support)),
                gone=gone.get(group.name),
                consumers=tuple(done.refits[c.weight] for c in group.consumers if c.weight in done.refits),
            )
        )
    return tuple(reports)
