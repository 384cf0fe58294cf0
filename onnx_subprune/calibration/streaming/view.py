"""What a question sees of one chunk, and what it makes of that."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from onnx_subprune._typing import Array, Int64
from onnx_subprune.calibration.streaming.target import GRADIENT, Adjoint, Aim, Left, chosen
from onnx_subprune.runtime.session import Session


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Terms:
    """Input, target and output positions of a chunk; None: no target, all positions. residual: of the reader that sends something back."""

    input: Array
    target: Array | None = None
    positions: Int64 | None = None
    residual: Array | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """One chunk, number `number` in the whole data, as a question sees it.

    input: name of what the contraction reads in the pruned model; channels: those of it that count, on `axis`; None for all.
    have, wanted: tensors of the pruned model, and of the original, which has more channels where `left` says so. drawn: gives the output positions that
    count. shown: takes hidden positions out. session: of an adjoint.
    """

    input: str
    channels: Int64 | None
    axis: int
    number: int
    have: Mapping[str, Array]
    wanted: Mapping[str, Array]
    left: Left | None
    drawn: Callable[[], Int64 | None]
    shown: Callable[[Array], Array]
    session: Session | None

    @property
    def source(self) -> Array:
        """The channels of the input that count; they may be all that there are."""
        return chosen(self.have[self.input], self.channels, self.axis)

    def cut(self, wanted: Array) -> Array:
        """Return what the pruned model has of the original's tensor."""
        return wanted if self.left is None else wanted.take(self.left[1], axis=self.left[0])

    def residual(self, aim: Aim) -> Array:
        """Return what the contraction puts out short of its aim, as far as the activation behind can tell."""
        wanted, current = self.cut(self.wanted[aim.tensor]), self.have[aim.tensor]
        return self.shown(aim.residual(aim.counting(wanted), aim.counting(current)))

    def sent_back(self, back: Adjoint, residual: Array) -> Array:
        """Return what a residual of the reader asks of its producer."""
        assert self.session is not None, "nothing is sent back"
        return self.session.run(back.feeds(self.have, residual), [GRADIENT])[GRADIENT]
