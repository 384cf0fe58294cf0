"""Whether a result may leave, and what is said beside it: nothing that is no better than a constant goes out without being asked for."""

from collections.abc import Mapping
from dataclasses import replace
from math import ceil, sqrt

from onnx_subprune.allocation import Macs
from onnx_subprune.calibration.shifts import SCARCE, rows_and_columns
from onnx_subprune.errors import FidelityError
from onnx_subprune.evaluation.gates import complaints, missed, ruined
from onnx_subprune.evaluation.measures import Fidelity
from onnx_subprune.graph.channels import Use
from onnx_subprune.pruning.budgets.budget import MaxDrop
from onnx_subprune.pruning.cut import Measured
from onnx_subprune.pruning.job import Job
from onnx_subprune.pruning.samples import Samples
from onnx_subprune.pruning.settings import Settings
from onnx_subprune.reconstruction.settings import Reconstruction, Refitted
from onnx_subprune.selection import Backward, Forward, Refined

APART, FELT = 1.5, 0.1
"""A layer has few samples where its relative error on samples that it was not fitted to is so many times the fitted one, and at least this."""
WHOLE = 0.99
"""Beyond this share of the multiply-accumulates the model is the original."""
MORE = 4
"""So many times as many samples are advised."""


def reviewed(job: Job, samples: Samples, done: Reconstruction, measured: Measured, seconds: float) -> Job:
    """Return the job with notes and warnings about its result; FidelityError if it must not be written. seconds: what grows with the samples."""
    assert measured.fidelity is not None, "there are data"
    scarce = scarcity(job, done.refits, seconds, samples.spare)
    warnings = warnings_of(job.settings, measured.fidelity, scarce, _next_share(job, done))
    if samples.used.uniform:
        warnings = (*warnings, "all samples of the data are the same, so that this says nothing about others")
    return replace(job, notes=(*job.notes, *filter(None, [scarce])), warnings=(*job.warnings, *warnings))


def _next_share(job: Job, done: Reconstruction) -> float:
    """The share of the multiply-accumulates with the next width of the group for which that is the least; 1 where all groups are whole then, or are."""
    widths = {name: len(choice.support) for name, choice in done.choices.items()}
    cost, whole = job.price.macs, job.price.macs({})
    wider = [
        (room.name, min(more))
        for room in job.rooms
        if (more := [width for width in room.choices if width > widths.get(room.name, room.width)])
    ]
    return min((cost({**widths, name: width}) / whole for name, width in wider), default=1.0)


def warnings_of(settings: Settings, fidelity: Fidelity, scarce: str | None, share: float = 0.0) -> tuple[str, ...]:
    """Return what is to be said of a result; FidelityError if it must not be written.

    share: of the multiply-accumulates, what is left at least if more is.
    scarce: what is known of too few samples, which is then the next thing to try. A drop of the user's own metric that is kept is what was asked for:
    a result that is no better than a constant is then warned of only.
    """
    gates, where = settings.gates, fidelity.where
    advice = next_try(settings, scarce, share)
    ruin = ruined(fidelity)
    if ruin is not None and not gates.accept_any and not isinstance(settings.budget, MaxDrop):
        raise FidelityError(
            f"{ruin} (measured on {where}): nothing was written; {advice}, or write it all the same with --accept-any"
        )
    if (miss := missed(fidelity, gates)) is not None:
        raise FidelityError(f"{miss} (measured on {where}): nothing was written; {advice}")
    found = [] if ruin is None else [f"{ruin} (measured on {where}); {advice}"]
    poor = [] if found else list(complaints(fidelity, gates))
    found += [f"{complaint}, measured on {where}; {advice}" for complaint in poor]
    if fidelity.held_out is False and settings.resources.holdout is None:
        found.append(f"{where}: too few to hold some out, so that this says little about other samples")
    return tuple(found)


def next_try(settings: Settings, scarce: str | None, share: float = 0.0) -> str:
    """Return what to try next, in words; share: see `warnings_of`."""
    if settings.refit is None:
        return "refit the weights (leave out --no-refit)"
    if not isinstance(settings.selector, (Refined, Forward, Backward)):
        return "choose the channels with --selector refined"
    if scarce is not None:
        return "give more samples"
    option = f"--{type(settings.budget).__name__.lower()}"
    if isinstance(settings.budget, MaxDrop):
        return "allow a smaller drop"
    fraction = (1 + settings.budget.fraction) / 2
    if isinstance(settings.budget, Macs) and share > fraction:
        if share > WHOLE:
            return "give more samples: there are no widths between these and those of the original"
        fraction = ceil(100 * share) / 100
    return f"keep more of the model ({option} {fraction:.2g}), or give more samples"


def scarcity(job: Job, refits: Mapping[Use, Refitted], seconds: float, spare: int) -> str | None:
    """Return that there are few samples for this model, and what more would cost; None where layers do as well on others as on what they were fitted to.

    seconds: what grows with the samples. spare: samples that the data have, and that were not used.
    """
    graph, used = job.task.graph, int(job.data["samples"])
    sizes = {
        item.weight: rows_and_columns(job.network, graph, item, used)[:2]
        for item in graph.contractions
        if item.weight in refits
    }
    few = {use: item for use, item in refits.items() if _scarce(item, *sizes[use])}
    if not few or job.settings.refit is None:
        return None
    use, worst = max(few.items(), key=lambda pair: pair[1].heldout_error)
    rows, columns = sizes[use]
    does = (
        f"whose relative error is {sqrt(worst.fitted_error):.2g} on samples that it was fitted to and {sqrt(worst.heldout_error):.2g} on others"
        if worst.refitted
        else "whose refit does worse than none on samples that it was not fitted to"
    )
    left = f"; DATA has {spare:,} that --samples leaves" if spare else ""
    return (
        f"few samples for this model: {used} samples give {rows:,} rows for the {columns:,} columns of {use.node}, {does} "
        f"({len(few)} of {len(refits)} layers are like this); {MORE} times as many take about {duration((MORE - 1) * seconds)} more{left}"
    )


def _scarce(item: Refitted, rows: int, columns: int) -> bool:
    held = sqrt(max(item.heldout_error, 0.0))
    if item.refitted:
        return held >= FELT and held > APART * sqrt(max(item.fitted_error, 0.0))
    return held >= FELT and rows < SCARCE * columns


def duration(seconds: float) -> str:
    """Return a time in words."""
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else "a second"
