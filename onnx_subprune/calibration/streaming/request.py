"""What the walk wants to know of one contraction, and what chunks have to say to it, from what both models have there.

An executor answers a question with sums over chunks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from onnx_subprune._typing import Int64
from onnx_subprune.calibration.data.masks import Visible
from onnx_subprune.calibration.moments.unfold import output_positions, sample_positions
from onnx_subprune.calibration.streaming.questions import Inputs, Question
from onnx_subprune.calibration.streaming.runner import Read
from onnx_subprune.calibration.streaming.settings import Running
from onnx_subprune.calibration.streaming.stream import Stream
from onnx_subprune.calibration.streaming.target import Left, Original
from onnx_subprune.calibration.streaming.view import Terms, View
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.contractions.convolution import Convolution
from onnx_subprune.graph.contractions.kernel import Kernel

WORTH = 3
"""Maps with fewer positions, in units of those asked for, are taken whole: lags make that as cheap."""


@dataclass(frozen=True, slots=True)
class Share:
    """Which chunks are looked at; see `Sampling`. beside: of the original, too."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How much of the data counts.

    every: one chunk of each half of so many is taken, as long as there is one; where there are no more than so many in all, the first chunk does
    for a step, which is not judged on another half. one_half: the first half alone. positions: about so many output positions of a sample of a
    convolution, drawn anew for every chunk; None for all.
    """

    every: int = 1
    positions: int | None = None
    one_half: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Request:
    """A question about the contraction with `weight`, which reads the tensor `input` of the pruned model.

    channels: those of the input that count, None for all. Of a producer, weight is that of its reader, kernel and input are its own.
    """

    weight: Use
    kernel: Kernel
    input: str
    question: Question = field(default_factory=Inputs)
    sampling: Sampling = Sampling()
    channels: Int64 | None = None

    @property
    def share(self) -> Share:
        """The chunks that this is about; a step that a producer takes, or took, needs fewer than a fit."""
        question, sampling = self.question, self.sampling
        beside = bool(question.original)
        return Share(sampling.every, question.step, question.probe, sampling.one_half, beside)

    @property
    def partial(self) -> bool:
        """True if there may be more samples, or more positions, than those that are looked at."""
        return self.sampling.positions is not None or self.sampling.every > 1


def drawn(request: Request, input_shape: Sequence[int], chunk: int) -> Int64 | None:
    """Return the output positions of chunk number `chunk` that count, the same whenever they are asked for; None for all."""
    kernel, positions = request.kernel, request.sampling.positions
    if positions is None or not isinstance(kernel, Convolution):
        return None
    total = output_positions(kernel, input_shape)
    if drawn_share(kernel, total, positions) == 1.0:
        return None
    return sample_positions(total, positions, np.random.default_rng([total, positions, chunk]))


def drawn_share(kernel: Kernel, total: int, positions: int | None) -> float:
    """Return which share of the `total` output positions of a sample counts, where about `positions` are asked for."""
    if positions is None or not kernel.spatial or total < WORTH * positions:
        return 1.0
    return positions / total


@dataclass(frozen=True, slots=True, eq=False)
class Beside:
    """The original where it runs alongside."""

    model: Original
    stream: Stream


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pair:
    """The pruned model, and the original, in front of the contraction that is asked about."""

    current: Stream
    original: Beside | None
    running: Running
    visible: Visible


class Answers:
    """Terms for a request, of `chunks`, `side` of them side by side. shape: that of the input of a chunk, () where it does not matter."""

    def __init__(self, request: Request, pair: Pair, chunks: Sequence[int], side: int, shape: Sequence[int]) -> None:
        self._request, self._question, self._visible = request, request.question, pair.visible
        self._shape = shape
        self._have = pair.current.reader(self._question.current(request.input), chunks, side)
        self._wanted: Read | None = None
        self._left: Left | None = None
        if names := self._question.original:
            assert pair.original is not None, "the original model does not run alongside"
            self._wanted = pair.original.stream.reader(names, chunks, side)
            self._left = pair.original.model.left.get(names[0])
        model = self._question.computes
        self._session = None if model is None else pair.running.open(model, side)

    def terms(self, chunk: int, number: int) -> Terms:
        """Return those of a chunk, which has that number in the whole data, of positions that are not hidden; may be called from several threads."""
        request = self._request
        view = View(
            input=request.input,
            channels=request.channels,
            axis=request.kernel.input_axis,
            number=number,
            have=self._have(chunk),
            wanted={} if self._wanted is None else self._wanted(chunk),
            left=self._left,
            drawn=lambda: drawn(request, self._shape, number),
            shown=lambda values: self._visible.shown(chunk, values),
            session=self._session,
        )
        found = self._question.terms(view)
        source, target = self._visible.rows(request.kernel, chunk, found.input, found.target)
        assert source is not None
        return replace(found, input=source, target=target)
