"""Widths that meet the budget."""

from onnx_subprune.pruning.budgets.ladder import Allocated
from onnx_subprune.pruning.budgets.widths import Means, allocated
from onnx_subprune.pruning.job import Job


def meet(job: Job) -> Allocated:
    """Return the widths that meet the budget; one that is met by trying brings its walk with it."""
    settings = job.settings
    means = Means(
        price=job.price,
        rounding=job.rounding,
        rules=settings.rules,
        judged=job.chooser,
        trials=job.trials,
        candidates=job.candidates,
    )
    return allocated(job.task, job.rooms, settings.budget, settings.allocator, means)
