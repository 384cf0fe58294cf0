"""The question about a statistic that a normalisation divides by: what it is in the original, from what it is in the pruned model."""

from collections.abc import Sequence
from dataclasses import dataclass

from onnx_subprune.calibration.moments.accumulator import Collector
from onnx_subprune.calibration.moments.statistics import relative_rows
from onnx_subprune.calibration.streaming.questions import Question
from onnx_subprune.calibration.streaming.view import Terms, View


@dataclass(frozen=True, slots=True, eq=False)
class Statistic(Question):
    """Moments of `relative_rows` of the input and of the original's `whole`, one number a position."""

    sums = Collector
    whole: str

    @property
    def original(self) -> Sequence[str]:
        """See `Question`."""
        return [self.whole]

    def terms(self, view: View) -> Terms:
        """See `Question`."""
        rows, target = relative_rows(view.have[view.input], view.wanted[self.whole])
        return Terms(input=rows, target=target)
