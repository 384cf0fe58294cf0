"""How a pruned model is fine-tuned, and what came of it."""

from dataclasses import dataclass

from onnx_subprune.errors import OptionError, at_least, typed_fields

STEPS = 2000
"""Steps unless there are told others."""


@typed_fields
@dataclass(frozen=True, slots=True, kw_only=True)
class FineTune:
    """How long, and from which draw on, the weights are fine-tuned.

    steps: at most so many, of a batch each (None: 2,000, or as many as the seconds allow). seconds: at most so long (None: no limit); where it runs out,
    the result depends on the machine. batch: samples a step. seed: of the order of the samples. Raises OptionError for numbers that make no sense.
    """

    steps: int | None = None
    seconds: float | None = None
    batch: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps, batch=self.batch)
        at_least(0, seed=self.seed)
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise OptionError(f"seconds={self.seconds}: give a time above zero")

    @property
    def total(self) -> int:
        """What progress is counted in: steps, or seconds where these alone are limited."""
        return self.steps or (STEPS if self.seconds is None else max(1, int(self.seconds)))

    def share(self, steps: int, seconds: float) -> float:
        """Return which share of the time is over after so many steps and seconds."""
        most = self.steps or (STEPS if self.seconds is None else None)
        return max(steps / most if most else 0.0, seconds / self.seconds if self.seconds else 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuned:
    """What fine-tuning did.

    loss: of the samples that chose the state that was kept, before and after: the share of the variance of the original's outputs that is lost; where an
    output is a softmax, the divergence from it. kept: False where no state was surely better than the weights as they were, which are then left. rate: the
    largest step size on the way to it. steps: that were made; best: the one whose state was kept. samples: fitted to, and chosen by. forward_passes,
    backward_passes: batches that were run through the pruned model or the original, and back through the pruned one. seconds: it took. moved: True if
    images were moved by a pixel; mirrored: and mirrored. labels: True if these counted, in the loss too: a tenth of their cross entropy.
    left: weights that are not learned, `because` of an operator that is in the way.
    """

    loss: tuple[float, float]
    kept: bool
    rate: float
    steps: int
    best: int
    batch: int
    samples: tuple[int, int]
    forward_passes: int
    backward_passes: int
    seconds: float
    moved: bool
    mirrored: bool = False
    labels: bool = False
    left: int = 0
    because: str | None = None

    @property
    def gain_per_hundred(self) -> float:
        """By which share of itself the loss fell, for each hundred passes of either kind."""
        before, after = self.loss
        passes = self.forward_passes + self.backward_passes
        return 100 * (1 - after / before) / passes if before > 0 and passes else 0.0
