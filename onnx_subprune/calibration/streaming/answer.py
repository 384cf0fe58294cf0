"""What chunks have to say to a request, from what both models have there."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnx_subprune.calibration.data.masks import Visible
from onnx_subprune.calibration.streaming.kept import Left, Original
from onnx_subprune.calibration.streaming.request import Request, drawn
from onnx_subprune.calibration.streaming.runner import Read
from onnx_subprune.calibration.streaming.settings import Running
from onnx_subprune.calibration.streaming.stream import Stream
from onnx_subprune.calibration.streaming.view import Terms, View


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
        back = self._question.back
        self._session = None if back is None else pair.running.open(back.model, side)

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
