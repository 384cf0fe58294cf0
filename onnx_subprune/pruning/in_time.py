"""The smaller model within its latency: where it is measured to take longer than it may, it is made again at other widths."""

from dataclasses import dataclass, replace

from threadpoolctl import threadpool_limits

from onnx_subprune.errors import BudgetError
from onnx_subprune.evaluation.timing import Timing
from onnx_subprune.pruning.budgets.ladder import Allocated
from onnx_subprune.pruning.budgets.latency import check_latency, exceeds, taken
from onnx_subprune.pruning.cut import Cut, cut, timed
from onnx_subprune.pruning.job import Job
from onnx_subprune.pruning.samples import Samples
from onnx_subprune.reconstruction.domain import DomainError
from onnx_subprune.reconstruction.reconstruct import reconstruct
from onnx_subprune.reconstruction.settings import Reconstruction

AGAIN = 1
"""How often a model is made again: a third more of processor time for ResNet-56, up to three quarters for a small network (`resnet_fashion`)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Made:
    """The smaller model, the widths and the walk that it comes from, and how long it takes."""

    found: Allocated
    done: Reconstruction
    smaller: Cut
    timing: Timing | None


def in_time(job: Job, samples: Samples, found: Allocated, done: Reconstruction) -> Made:
    """Return the model that `done` leads to, or one at other widths that takes less, where it takes longer than its budget says.

    Raises VerificationError where that is so in the end, and as `cut` does.
    """
    budget = job.settings.budget
    for left in range(AGAIN, -1, -1):
        smaller = cut(job, done, samples.used)
        timing = timed(job, samples, smaller)
        slow = timing is not None and exceeds(budget, timing)
        if timing is None or not slow or not left or found.instead is None:
            break
        try:
            other = replace(found, widths=found.instead(found.widths, taken(timing)))
            with threadpool_limits(1):
                walk = reconstruct(replace(job.task, widths=other.widths))
        except (BudgetError, DomainError):
            break
        spent = {name: seconds + done.seconds.get(name, 0.0) for name, seconds in walk.seconds.items()}
        found, done = other, replace(walk, seconds=spent)
    if timing is not None:
        check_latency(budget, timing)
    return Made(found=found, done=done, smaller=smaller, timing=timing)
