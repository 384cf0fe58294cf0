"""What the walk wants to know of one contraction: a question that an executor answers with sums over chunks."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

from onnx_subprune._typing import Array, Int64
from onnx_subprune.calibration.moments.unfold import output_positions, sample_positions
from onnx_subprune.calibration.streaming.kept import chosen
from onnx_subprune.calibration.streaming.target import Adjoint, Aim
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.contractions.contraction import CONVOLUTIONS, Kernel

WORTH = 3
"""Maps with fewer positions, in units of those asked for, are taken whole: lags make that as cheap."""


class What(Enum):
    """What is collected.

    Moments; the energy of the residual alone; that and the energy of the aim; the peaks of the input's channels; the gram of what residuals of
    random signs ask, over a few samples.
    """

    MOMENTS = auto()
    RESIDUAL = auto()
    LOSS = auto()
    PEAKS = auto()
    PROBE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Which chunks are looked at; see `Ask`. beside: of the original, too."""

    every: int
    step: bool
    probe: bool
    one_half: bool
    beside: bool

    def chunks(self, first: int, count: int, total: int) -> list[int]:
        """Return which of `count` chunks, from number `first` on of `total`, counted from 0."""
        if self.step and self.every >= total > 1:
            return [0] if first == 0 < count else []
        every = max(1, total // 2 if self.probe else min(self.every, total // 2))
        halves = min(2, total)
        numbers = (number for number in range(first, first + count) if number // 2 % every == 0)
        return [number - first for number in numbers if not self.one_half or number % halves == 0]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ask:
    """The moments of one contraction.

    weight: its weight, which identifies it. input: the tensor that it reads in the pruned model. aim: what it should reproduce of the
    original model, None for the moments of the input alone. axis: the channel axis of its output. renew: take from the original only what
    the activation behind can tell apart. with_gram: False where the gram is known already. positions: about so many output positions of a
    sample of a convolution, drawn anew for every chunk; None for all. channels, outputs: those of the input and of the output that count;
    the moments, and the aim, are of them alone. None for all.
    every: take one chunk of each half of so many, as long as there is one; where there are no more than so many in all, the first chunk does
    for a step, which is not judged on another half. one_half: of the first half alone. what: moments, or less.
    back: with this, the target is what the residual of a reader asks of the contraction; weight, aim and axis are that reader's, kernel and
    input the contraction's. See `adjoint`.
    """

    weight: Use
    kernel: Kernel
    input: str
    aim: Aim | None = None
    axis: int = 1
    renew: bool = False
    with_gram: bool = True
    positions: int | None = None
    channels: Int64 | None = None
    outputs: Int64 | None = None
    every: int = 1
    one_half: bool = False
    what: What = What.MOMENTS
    back: Adjoint | None = None

    @property
    def share(self) -> Share:
        """The chunks that this is about; a step that a producer takes, or took, needs fewer than a fit."""
        return Share(
            every=self.every,
            step=self.back is not None or self.what is not What.MOMENTS,
            probe=self.what is What.PROBE,
            one_half=self.one_half,
            beside=self.aim is not None,
        )

    @property
    def partial(self) -> bool:
        """True if there may be more samples, or more positions, than those that are looked at."""
        return self.positions is not None or self.every > 1

    def source(self, x: Array) -> Array:
        """Return the channels of the input that count; they may be all that there are."""
        return chosen(x, self.channels, self.kernel.input_axis)

    def output(self, y: Array) -> Array:
        """Return the channels of the aim's tensor, or of one of its shape, that count; they may be all that there are."""
        return chosen(y, self.outputs, self.axis)


def drawn(ask: Ask, input_shape: Sequence[int], chunk: int) -> Int64 | None:
    """Return the output positions of chunk number `chunk` that count, the same whenever they are asked for; None for all."""
    if ask.positions is None or ask.kernel.kind not in CONVOLUTIONS:
        return None
    total = output_positions(ask.kernel, input_shape)
    if drawn_share(ask.kernel, total, ask.positions) == 1.0:
        return None
    return sample_positions(total, ask.positions, np.random.default_rng([total, ask.positions, chunk]))


def drawn_share(kernel: Kernel, total: int, positions: int | None) -> float:
    """Return which share of the `total` output positions of a sample counts, where about `positions` are asked for."""
    if positions is None or kernel.kind not in CONVOLUTIONS or total < WORTH * positions:
        return 1.0
    return positions / total
