"""Widths at which what follows is defined: groups with which a domain is left, whatever the weights, stay wider, or whole."""

from collections.abc import Callable
from dataclasses import replace

from onnx_subprune.allocation import Room
from onnx_subprune.errors import BudgetError
from onnx_subprune.pruning.budgets.ladder import Allocated
from onnx_subprune.pruning.job import Job
from onnx_subprune.reconstruction.domain import DomainError, partial_behind
from onnx_subprune.reconstruction.reconstruct import reconstruct
from onnx_subprune.reconstruction.settings import Reconstruction

ATTEMPTS = 4
"""After so many walks that ended early, groups stay whole at once."""


def within_domains(job: Job, meet: Callable[[Job], Allocated]) -> tuple[Job, Allocated, Reconstruction]:
    """Return the widths that `meet` finds and the walk at these; where that leaves a domain, others, with a job that says so.

    A group is first kept from the upper half of what would be taken from it, and then whole. Raises BudgetError where the budget cannot be met so.
    """
    bounds: dict[str, str] = {}
    for attempt in range(2 * len(job.rooms) + 1):
        try:
            found = meet(job)
        except BudgetError as error:
            if not bounds:
                raise
            raise BudgetError(f"{error} ({'; '.join(bounds.values())})") from error
        try:
            done = found.done or reconstruct(replace(job.task, widths=found.widths))
        except DomainError as error:
            wider = {
                room.name: _wider(room, found.widths[room.name], whole=room.name in bounds or attempt >= ATTEMPTS)
                for room in job.rooms
                if room.name in error.groups and found.widths[room.name] < room.width
            }
            if not wider:
                raise
            bounds |= {room.name: _reason(room, error.reason) for room in wider.values()}
            job = replace(job, rooms=[wider.get(room.name, room) for room in job.rooms])
            continue
        return replace(job, notes=(*job.notes, *bounds.values())), found, done
    raise AssertionError("in the end all groups are whole")


def _wider(room: Room, width: int, *, whole: bool) -> Room:
    above = [choice for choice in room.choices if choice > width]
    return room.at_least(room.width if whole else above[len(above) // 2])


def _reason(room: Room, reason: str) -> str:
    least = room.choices[0]
    many = f"all {room.width}" if least == room.width else f"at least {least} of {room.width}"
    return f"{room.name} keeps {many} channels: {reason}"


def unseen(job: Job, done: Reconstruction) -> tuple[str, ...]:
    """Return a warning of layers in front of operators that are not defined everywhere: without data nobody sees whether they still are."""
    contractions = list(job.task.graph.contractions)
    found = {
        item.node: sorted(set(partial_behind(job.network, item, contractions).values()))
        for item in contractions
        if item.weight in done.refits and done.refits[item.weight].fitted_error > 0.0
    }
    where = [f"{' and '.join(ops)} behind {node}" for node, ops in found.items() if ops]
    if not where:
        return ()
    return (
        f"{', '.join(where)}: not defined everywhere, and without data it is not known whether all is finite with fewer channels: "
        "look at the result with `compare`, or prune with --data",
    )
